"""Average what optimizers apply over the ranks, each by the rows it comes from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from tfos.frameworks.tensorflow.trained_state import is_optimizer

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

    Attributes
    ----------
    attached
        The optimizers that average, in the order in which they were attached.
    """

    def __init__(self, hvd: Any) -> None:
        import tensorflow as tf

        self._hvd = hvd
        # A variable, not an argument: the user's step may be a tf.function of its own, which would
        # keep what it captured when it was first traced.
        self.share = tf.Variable(1.0, trainable=False, dtype=tf.float32)
        # Neither Horovod's functions nor ours need AutoGraph, which warns of each that it cannot
        # convert; what the optimizer calls may.
        self._average = tf.autograph.experimental.do_not_convert(self.average)
        self._applying = False
        self.attached: list[Any] = []

    def attach(self, trackables: Iterable[Any]) -> None:
        """Wrap ``apply_gradients`` of every optimizer among `trackables`; once for each."""
        for each in trackables:
            if is_optimizer(each) and all(each is not attached for attached in self.attached):
                self._wrap(each, f"tfos.gradient.{len(self.attached)}")
                self.attached.append(each)

    def detach(self) -> None:
        """Have every optimizer apply what it is given again."""
        for optimizer in self.attached:
            object.__delattr__(optimizer, "apply_gradients")
        self.attached.clear()

    def _wrap(self, optimizer: Any, name: str) -> None:
        import tensorflow as tf

        apply: Callable[..., Any] = optimizer.apply_gradients
        # Ranks trace a step, and the functions it calls, again at different times: what is sent has
        # the same name in every trace, counted within the function that sends it.
        calls: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

        @functools.wraps(apply)
        def averaged(grads_and_vars: Any, *args: Any, **options: Any) -> Any:
            if self._applying:  # an optimizer within an optimizer: averaged by the outer one
                return apply(grads_and_vars, *args, **options)
            self._applying = True
            try:
                graph = tf.compat.v1.get_default_graph()
                calls[graph] = calls.get(graph, -1) + 1
                pairs = [
                    (self._average(gradient, f"{name}.{calls[graph]}.{place}"), variable)
                    for place, (gradient, variable) in enumerate(grads_and_vars)
                ]
                return apply(pairs, *args, **options)
            finally:
                self._applying = False

        # Keras tracks what is set on it; this is not of its state.
        object.__setattr__(optimizer, "apply_gradients", averaged)

    def average(self, gradient: Any, name: str) -> Any:
        """Return the average over the ranks of a tensor or IndexedSlices; None stays None.

        `name` is the same on every rank, and no other's that may travel at the same time.
        """
        import tensorflow as tf

        if gradient is None:
            return None
        if isinstance(gradient, tf.IndexedSlices):
            return self._average_slices(gradient, name)
        return self._hvd.allreduce(
            self._weighed(gradient), op=self._hvd.Sum, name=name, ignore_name_scope=True
        )

    def _average_slices(self, gradient: Any, name: str) -> Any:
        import tensorflow as tf

        indices, places = tf.unique(gradient.indices)
        merged = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(indices))
        # Who has no rows sends none of a table.
        sent = tf.where(self.share > 0, tf.size(indices), 0)
        gather = functools.partial(self._hvd.allgather, ignore_name_scope=True)
        values = gather(self._weighed(merged)[:sent], name=f"{name}.values")
        rows = gather(indices[:sent], name=f"{name}.indices")
        return tf.IndexedSlices(values, rows, gradient.dense_shape)

    def _weighed(self, values: Any) -> Any:
        import tensorflow as tf

        # Not a product alone: what a rank without rows computed may be no number.
        weighed = values * tf.cast(self.share, values.dtype)
        return tf.where(self.share > 0, weighed, tf.zeros_like(values))
