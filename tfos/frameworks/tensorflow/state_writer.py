"""Write the variables of a `state` into a checkpoint's files, by a function traced once."""

from __future__ import annotations

from typing import Any

from tfos.frameworks.tensorflow.trained_state import TrainedState
from tfos.frameworks.tensorflow.warm_start import this_process

__all__ = ["StateWriter"]

_FIRST_TENSOR = 3
"""Inputs of the operation SaveV2 before the tensors: prefix, names, slices."""


class StateWriter:
    """Writes what a `TrainedState` holds, again and again; for one thread.

    For variables on several machines TensorFlow traces a function at each save. Every server is
    sent it, one after the other, and each wait for an answer holds Python's lock: a chief that
    saves while a worker is stopped stops too (seen with TensorFlow 2.21 and a worker in SIGSTOP).
    So one function serves for as long as the state has the same objects.

    Parameters
    ----------
    state
        What to write.
    """

    def __init__(self, state: TrainedState) -> None:
        self._state = state
        self._objects: list[Any] = []
        self._write: Any = None

    def write(self, prefix: str) -> None:
        """Write all variables to files that begin with `prefix`, in a local directory that exists.

        Blocks until they are there. This process writes every part: parameter servers may be on
        hosts that share no disk.

        Raises
        ------
        tensorflow.errors.OpError
            If a variable cannot be read where it lies, or a file cannot be written.
        """
        import tensorflow as tf

        objects = self._state.objects()
        if not _same(objects, self._objects):
            self._write = self._traced()
            # With a value of Python's in it, as it is now, a function serves once.
            self._objects = [] if _holds_python_values(self._write) else objects
        self._write(tf.constant(prefix))

    def _traced(self) -> Any:
        import tensorflow as tf

        checkpoint = self._state.checkpoint
        options = tf.train.CheckpointOptions(experimental_io_device=this_process())

        def write(prefix: Any) -> None:
            checkpoint.write(prefix, options=options)

        traced = tf.function(write, autograph=False)
        return traced.get_concrete_function(tf.TensorSpec([], tf.string))


def _same(objects: list[Any], others: list[Any]) -> bool:
    return len(objects) == len(others) and all(
        each is other for each, other in zip(objects, others, strict=True)
    )


def _holds_python_values(traced: Any) -> bool:
    """Whether a traced save holds values as they were then, besides its list of the objects.

    Such are a ``tf.train.experimental.PythonState``'s.
    """
    constants = 0
    for operation in traced.graph.get_operations():
        if operation.type == "SaveV2":
            for tensor in operation.inputs[_FIRST_TENSOR:]:
                source = tensor.op
                while source.type == "Identity":
                    source = source.inputs[0].op
                constants += source.type == "Const"
    return constants > 1
