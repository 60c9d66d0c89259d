"""Average what optimizers apply over the ranks, each by the rows it comes from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["GradientAverager"]


class GradientAverager:
    """Have every optimizer average its gradients over the ranks before it applies them.

    A rank's gradient counts by `share`, the part of the step's rows that are its own: a loss that
    is a mean over the batch gives the gradient of the mean over all the ranks' rows. A rank without
    rows counts nothing, whatever its gradient is. Sparse gradients are merged before they travel:
    each rank sends a row of a table once, however often its batch names it.

    Parameters
    ----------
    hvd
        ``horovod.tensorflow``, initialised.
    """

    def __init__(self, hvd: Any) -> None:
        import tensorflow as tf

        self._hvd = hvd
        # A variable, not an argument: the user's step may be a tf.function of its own, which would
        # keep what it captured when it was first traced.
        self.share = tf.Variable(1.0, trainable=False, dtype=tf.float32)
        self._sent = 0
        self._applying = False
        self._attached: list[Any] = []

    def begin_trace(self) -> None:
        """Name what is sent from the first again: ranks trace the same step at different times."""
        self._sent = 0

    def attach(self, trackables: Iterable[Any]) -> None:
        """Wrap ``apply_gradients`` of every optimizer among `trackables`; once for each."""
        for each in trackables:
            is_optimizer = callable(getattr(each, "apply_gradients", None))
            if is_optimizer and all(each is not attached for attached in self._attached):
                self._wrap(each)
                self._attached.append(each)

    def detach(self) -> None:
        """Have every optimizer apply what it is given again."""
        for optimizer in self._attached:
            object.__delattr__(optimizer, "apply_gradients")
        self._attached.clear()

    def _wrap(self, optimizer: Any) -> None:
        apply: Callable[..., Any] = optimizer.apply_gradients

        @functools.wraps(apply)
        def averaged(grads_and_vars: Any, *args: Any, **options: Any) -> Any:
            if self._applying:  # an optimizer within an optimizer: averaged by the outer one
                return apply(grads_and_vars, *args, **options)
            self._applying = True
            try:
                pairs = [(self.average(grad), variable) for grad, variable in grads_and_vars]
                return apply(pairs, *args, **options)
            finally:
                self._applying = False

        # Keras tracks what is set on it; this is not of its state.
        object.__setattr__(optimizer, "apply_gradients", averaged)

    def average(self, gradient: Any) -> Any:
        """Return the average over the ranks of a tensor or IndexedSlices; None stays None."""
        import tensorflow as tf

        if gradient is None:
            return None
        name = f"tfos.gradient.{self._sent}"
        self._sent += 1
        if isinstance(gradient, tf.IndexedSlices):
            return self._average_slices(gradient, name)
        return self._hvd.allreduce(self._weighed(gradient), op=self._hvd.Sum, name=name)

    def _average_slices(self, gradient: Any, name: str) -> Any:
        import tensorflow as tf

        indices, places = tf.unique(gradient.indices)
        merged = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(indices))
        # Who has no rows sends none of a table.
        sent = tf.where(self.share > 0, tf.size(indices), 0)
        values = self._hvd.allgather(self._weighed(merged)[:sent], name=f"{name}.values")
        rows = self._hvd.allgather(indices[:sent], name=f"{name}.indices")
        return tf.IndexedSlices(values, rows, gradient.dense_shape)

    def _weighed(self, values: Any) -> Any:
        import tensorflow as tf

        # Not a product alone: what a rank without rows computed may be no number.
        weighed = values * tf.cast(self.share, values.dtype)
        return tf.where(self.share > 0, weighed, tf.zeros_like(values))
