"""Keras's ``model.fit`` in a run: callbacks that report progress, notice stops and NaN."""

from __future__ import annotations

import math
import time
from typing import Any

from tfos.arguments import numbers_by_name
from tfos.base import TrainContext
from tfos.errors import DivergedError
from tfos.training_parts import OnNan

__all__ = ["progress_callback"]

_REPORT_EVERY_S = 1.0


def progress_callback(ctx: TrainContext, on_nan: OnNan) -> Any:
    """Return a Keras callback that reports steps each second and metrics after each epoch.

    It ends the training when the run is being stopped, and by `DivergedError` after an epoch
    whose metrics are NaN or infinite, unless `on_nan` is other than ``"stop"``.
    """
    import tensorflow as tf

    class Progress(tf.keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            # Under a ParameterServerStrategy Keras takes only callbacks that can do with tensors.
            self._supports_tf_logs = True
            self._before = self._step = 0
            self._next_report = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._step = self._before + int(batch) + 1
            if ctx.should_stop():
                self.model.stop_training = True
            if time.monotonic() >= self._next_report:
                self._next_report = time.monotonic() + _REPORT_EVERY_S
                ctx.report(self._step)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._before = self._step
            metrics = numbers_by_name("Keras returned", logs or {})
            ctx.report(self._step, metrics)
            bad = [f"{name!r} is {v}" for name, v in metrics.items() if not math.isfinite(v)]
            if bad and on_nan == "stop":
                raise DivergedError(
                    f"model.fit: {', '.join(bad)} after epoch {int(epoch) + 1}: training has "
                    "diverged; lower the learning rate, or look for such values in the data "
                    "(ctx.keras_callbacks(on_nan='ignore') goes on)",
                    step=self._step,
                    names=bad,
                )

    return Progress()
