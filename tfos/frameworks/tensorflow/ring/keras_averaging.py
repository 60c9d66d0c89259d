"""Keras's ``model.fit`` on a ring: the ranks start alike, average gradients and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfos.frameworks.tensorflow.ring.gradients import GradientAverager

__all__ = ["averaging_callback"]


def averaging_callback(hvd: Any, averager: GradientAverager, gather: Callable[[Any], Any]) -> Any:
    """Return a Keras callback under which the ranks of a ring train one model.

    What the model's optimizer applies is averaged over the ranks; after the first batch, when all
    variables exist, rank 0's become everybody's; metrics of an epoch are averaged.

    Parameters
    ----------
    hvd
        ``horovod.tensorflow``, initialised.
    averager
        Averages gradients.
    gather
        Returns what every rank gives, by rank.
    """
    import tensorflow as tf

    class Averaging(tf.keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._alike = False

        def on_train_begin(self, logs: Any = None) -> None:
            averager.share.assign(1.0 / hvd.size())
            averager.attach([self.model.optimizer])
            # One that an earlier `fit` traced, without these callbacks, averages nothing.
            self.model.train_function = None
            self.model.make_train_function()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if not self._alike:
                self._alike = True
                hvd.broadcast_variables(self.model.variables, root_rank=0)
                hvd.broadcast_variables(_variables_of(self.model.optimizer), root_rank=0)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            for name in sorted(logs or {}):
                logs[name] = float(gather(float(logs[name])).mean())

        def on_train_end(self, logs: Any = None) -> None:
            averager.detach()

    return Averaging()


def _variables_of(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
