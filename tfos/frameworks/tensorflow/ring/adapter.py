"""Adapt Horovod: every worker is a rank, runs ``train``, and is fed its part of every DataFrame."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from tfos.base import TrainContext
from tfos.config import RolesConfig
from tfos.errors import ConfigError, InfrastructureError
from tfos.frameworks.contract import role_spec
from tfos.frameworks.tensorflow.base import TensorFlowFramework, TensorFlowRuntime
from tfos.frameworks.tensorflow.ring.collectives import Collectives
from tfos.frameworks.tensorflow.ring.gradients import GradientAverager
from tfos.frameworks.tensorflow.ring.keras_averaging import averaging_callback
from tfos.frameworks.tensorflow.ring.placement import place_of, ranks_by_host
from tfos.frameworks.tensorflow.ring.steps import RingSteps
from tfos.frameworks.tensorflow.ring.store import RingStore
from tfos.frameworks.tensorflow.trained_state import refuse_keras_3
from tfos.frameworks.tensorflow.training_loop import run_loop
from tfos.horovod_installed import horovod_problem
from tfos.read_plan import FeedPosition
from tfos.topology import ClusterSpec, Role, RoleSpec, TaskKey
from tfos.training_parts import Feed, FitPlan, FitResult, HostLink, OnNan, ProcessFacts

__all__ = ["RingFramework"]

_SHUTDOWN_BOUND_S: Final = 5.0


class RingFramework(TensorFlowFramework):
    """Workers only, all alike: worker-0 has rank 0."""

    name = "ring"
    summary = (
        "--num-workers ranks run train with Horovod, started all together (one Spark barrier "
        "stage). For dense models."
    )
    packages = ("tensorflow", "horovod")
    keras = (2,)

    def roles(self, config: RolesConfig) -> tuple[RoleSpec, ...]:
        """Return the workers, one gang."""
        workers = config.num_workers
        return (role_spec(Role.WORKER, workers, config.worker, trains=True, gang=True),)

    def feeds(self, role: Role, datasets: Sequence[str]) -> tuple[str, ...]:
        """Return all of them: each rank is fed its part of each."""
        return tuple(datasets)

    def check_installed(self) -> None:
        """Check that Horovod is installed, and built for the TensorFlow that is."""
        problem = horovod_problem()
        if problem is not None:
            raise ConfigError(problem)

    def import_libraries(self, role: Role) -> None:
        """Import TensorFlow and Horovod; where Horovod is amiss, `runtime` says so."""
        super().import_libraries(role)
        if horovod_problem() is None:
            _import_horovod()

    def ranks(self, trainers: tuple[TaskKey, ...], cluster: ClusterSpec) -> tuple[TaskKey, ...]:
        """Return the workers with those of one host together."""
        return ranks_by_host(trainers, cluster)

    def open_store(self, host: str) -> RingStore:
        """Open the store that the ranks of one generation meet through."""
        return RingStore(host)

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[_RingRuntime]:
        """Form the ring; blocks until every rank has come."""
        self.check_installed()
        assert facts.store is not None
        place = place_of(facts.key, facts.trainers, facts.cluster)
        os.environ.update(place.environment(facts.store, _interface_of(place.host)))
        hvd = _import_horovod()
        hvd.init()
        size = hvd.size()
        collectives = Collectives(_operations())
        yield _RingRuntime(hvd, collectives)
        _leave(hvd)
        if size > 1 and not collectives.exchanges:
            raise ConfigError(
                f"the {size} ranks exchanged nothing: each has trained on its own rows alone. "
                "Train with ctx.fit, with model.fit(..., callbacks=ctx.keras_callbacks()), or "
                "average gradients with ctx.hvd; a program whose ranks are meant to work alone "
                "adds up what they did with ctx.reduce_sum"
            )


class _RingRuntime(TensorFlowRuntime):
    def __init__(self, hvd: Any, collectives: Collectives) -> None:
        self.hvd = hvd
        self._collectives = collectives
        # One for every `fit`: a function of the user's keeps what it captured in the first.
        self._averager = GradientAverager(hvd)
        self._gathers = 0

    def fit(self, plan: FitPlan, ctx: TrainContext) -> FitResult:
        refuse_keras_3(plan.state, "ring")
        try:
            return run_loop(
                plan,
                ctx,
                lambda plan, state, starts: RingSteps(
                    plan, ctx, state, starts, self.hvd, self._averager
                ),
                self._check_resumed,
            )
        finally:
            self._averager.detach()

    def _check_resumed(self, step: int, positions: Mapping[int, FeedPosition]) -> None:
        """See that every rank goes on from the same checkpoint."""
        told = zlib.crc32(json.dumps([step, sorted(positions.items())]).encode())
        if len(set(self._gather_uncounted(told).tolist())) > 1:
            raise ConfigError(
                "the ranks resumed from different checkpoints: --checkpoint-dir must name storage "
                "that every host sees alike"
            )

    def steps_per_epoch(self, feed: Feed, name: str, batch_size: int) -> int:
        with self._collectives.uncounted():
            return super().steps_per_epoch(feed, name, batch_size)

    def keras_callbacks(self, ctx: TrainContext, on_nan: OnNan) -> list[Any]:
        averaging = averaging_callback(
            self.hvd, self._averager, self._gather_uncounted, str(ctx.facts.key)
        )
        return [averaging, *super().keras_callbacks(ctx, on_nan)]

    def _gather_uncounted(self, values: Any) -> Any:
        with self._collectives.uncounted():
            return self.gather(values)

    def gather(self, values: Any) -> Any:
        self._gathers += 1
        mine = np.asarray(values, np.float64)[np.newaxis]
        return self.hvd.allgather(mine, name=f"tfos.gather.{self._gathers}").numpy()


def _import_horovod() -> Any:
    """Import Horovod and, where tf_keras is installed, its callbacks and optimizers for Keras.

    Horovod 0.28.1 takes ``keras.backend`` for that of TensorFlow's Keras; from TensorFlow 2.16 on
    that is Keras 3, whose backend lacks what MetricAverageCallback calls.
    """
    import horovod.tensorflow as hvd

    if importlib.util.find_spec("tf_keras") is not None:
        import tf_keras

        keras = sys.modules.get("keras")
        sys.modules["keras"] = tf_keras
        try:
            importlib.import_module("horovod.tensorflow.keras")
        finally:
            if keras is None:
                del sys.modules["keras"]
            else:
                sys.modules["keras"] = keras
    return hvd


def _operations() -> Any:
    """Return Horovod's module of operations, which its functions look up by name at each call."""
    return importlib.import_module("horovod.tensorflow.mpi_ops").MPI_LIB


def _leave(hvd: Any) -> None:
    """Leave the ring in order; a peer that hangs does not hold this process."""
    leaving = threading.Thread(target=hvd.shutdown, daemon=True)
    leaving.start()
    leaving.join(_SHUTDOWN_BOUND_S)


def _interface_of(host: str) -> str:
    """Return the network interface that has the address of `host`, which is this one."""
    import psutil

    address = socket.gethostbyname(host)
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return str(name)
    raise InfrastructureError(f"no network interface of this host has the address {address}")
