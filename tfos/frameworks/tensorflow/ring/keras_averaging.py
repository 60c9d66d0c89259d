"""Keras's ``model.fit`` on a ring: the ranks start alike, average gradients and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfos.frameworks.tensorflow.ring.alike import check_alike
from tfos.frameworks.tensorflow.ring.gradients import GradientAverager

__all__ = ["averaging_callback"]

_ADVICE = (
    "ctx.keras_callbacks() average over the ranks what an optimizer applies that the model was "
    "compiled with or has as an attribute; make it one"
)


def averaging_callback(
    hvd: Any, averager: GradientAverager, gather: Callable[[Any], Any], who: str
) -> Any:
    """Return a Keras callback under which the ranks of a ring train one model.

    What the optimizers apply that the model holds is averaged over the ranks; after the first
    batch, when all variables exist, rank 0's become everybody's, and after the second one they must
    be the same still; metrics of an epoch are averaged.

    Parameters
    ----------
    hvd
        ``horovod.tensorflow``, initialised.
    averager
        Averages gradients.
    gather
        Returns what every rank gives, by rank.
    who
        This rank, for messages.
    """
    import tensorflow as tf

    class Averaging(tf.keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._batches = 0

        def on_train_begin(self, logs: Any = None) -> None:
            averager.share.assign(1.0 / hvd.size())
            held = tf.train.TrackableView(self.model).descendants()
            averager.attach([self.model.optimizer, *held])
            # One that an earlier `fit` traced, without these callbacks, averages nothing.
            self.model.train_function = None
            self.model.make_train_function()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._batches += 1
            if self._batches == 1:
                hvd.broadcast_variables(self.model.variables, root_rank=0)
                for optimizer in averager.attached:
                    hvd.broadcast_variables(_variables_of(optimizer), root_rank=0)
            elif self._batches == 2:
                check_alike(hvd, self.model.variables, who, _ADVICE)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            for name in sorted(logs or {}):
                logs[name] = float(gather(float(logs[name])).mean())

        def on_train_end(self, logs: Any = None) -> None:
            averager.detach()

    return Averaging()


def _variables_of(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
