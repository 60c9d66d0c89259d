"""What the architectures of TensorFlow share: imports, environment, saved models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from tfos.arguments import Arguments
from tfos.arrow_feed import dataset
from tfos.arrow_feed.service import FeedService
from tfos.base import TrainContext
from tfos.config import RoleResources
from tfos.frameworks.contract import Framework, PlainRuntime
from tfos.frameworks.tensorflow.keras_fit import progress_callback
from tfos.frameworks.tensorflow.saved_model import check_saved_model
from tfos.horovod_installed import tensorflow_version
from tfos.topology import Role, TaskKey
from tfos.training_parts import OnNan

__all__ = ["TensorFlowFramework", "TensorFlowRuntime"]

_LEAST_THREADS: Final = 2


class TensorFlowFramework(Framework):
    """An architecture whose training processes have TensorFlow."""

    packages: ClassVar[tuple[str, ...]] = ("tensorflow",)

    def versions(self) -> dict[str, str | None]:
        """Return TensorFlow's."""
        return {"tensorflow": tensorflow_version()}

    def import_libraries(self, role: Role) -> None:
        """Import TensorFlow and let it look for its devices."""
        import tensorflow as tf

        tf.config.list_physical_devices()

    def environment(self, key: TaskKey, resources: RoleResources) -> dict[str, str]:
        """Return what every process has, and how TensorFlow is to use its cores and ports."""
        environment = {
            **super().environment(key, resources),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            # The role host holds the port by SO_REUSEPORT; TensorFlow's server binds beside it.
            "TF_GRPC_REUSE_PORT": "true",
        }
        if resources.cores is not None:
            environment["TF_NUM_INTRAOP_THREADS"] = str(resources.cores)
        # Where TensorFlow may use one CPU it takes one thread, in which an op that waits for
        # another waits for ever.
        cores = resources.cores or len(os.sched_getaffinity(0))
        if resources.cores is not None or cores < _LEAST_THREADS:
            environment["TF_NUM_INTEROP_THREADS"] = str(max(_LEAST_THREADS, cores))
        return environment

    def take_feed(self, service: FeedService) -> None:
        """Register it with TensorFlow, whose datasets may be read by other processes' graphs."""
        dataset.serve(service)


class TensorFlowRuntime(PlainRuntime):
    """Publishes SavedModels, and trains by Keras; what else an architecture has, it adds."""

    def keras_callbacks(self, ctx: TrainContext, on_nan: OnNan) -> list[Any]:
        """Return the one that reports progress."""
        return [progress_callback(ctx, on_nan)]

    def exporter(
        self, model: Any, signatures: Any, options: Mapping[str, Any]
    ) -> Callable[[str], None]:
        """Return what saves a SavedModel, and sees that it can be loaded."""
        import tensorflow as tf

        try:
            tf.train.Checkpoint(model=model)
        except ValueError as error:
            what = "a tf.Module or a Keras model"
            raise Arguments("ctx.export").wrong_type("model", model, what) from error

        def write(directory: str) -> None:
            tf.saved_model.save(model, directory, signatures=signatures, **options)
            check_saved_model(directory)

        return write
