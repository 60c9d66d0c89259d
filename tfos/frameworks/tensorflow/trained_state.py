"""The `state` of `TrainContext.fit`: its variables, what the step changes of them, their health."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tfos.arguments import Arguments
from tfos.errors import ConfigError

__all__ = ["TrainedState", "is_optimizer", "refuse_keras_3"]

log = logging.getLogger(__name__)

_READS = frozenset(
    {
        "ReadVariableOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "_ReadVariablesOp",
    }
)
"""Operations that leave a variable as it is."""
_CALLS_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")
_MOST_NAMED = 3
"""Variables that a message names."""


class TrainedState:
    """What `fit` trains and keeps.

    Parameters
    ----------
    state
        Trackables by name.

    Raises
    ------
    TypeError
        If TensorFlow cannot keep one of them.
    ValueError
        If there are none.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        import tensorflow as tf

        arguments = Arguments("ctx.fit")
        if not state:
            raise arguments.wrong_value("state", state, "the models and optimizers to keep")
        for name, value in state.items():
            try:
                tf.train.Checkpoint(**{name: value})
            except (TypeError, ValueError) as error:
                raise arguments.wrong_type(
                    f"state[{name!r}]", value, "a model, an optimizer or a variable"
                ) from error
        self.checkpoint = tf.train.Checkpoint(**state)
        self._looked_at: list[int] = []
        self._sound: Any = None

    def tracked(self) -> list[Any]:
        """Return every object of the state, however deep, as far as they exist by now."""
        import tensorflow as tf

        return list(tf.train.TrackableView(self.checkpoint).descendants())

    def objects(self) -> list[Any]:
        """Return the same as `tracked`, but the shards of a variable in place of what holds them.

        TensorFlow makes that anew each time it looks for an optimizer's own; all else stays the
        same object for as long as it is in the state.
        """
        return [part for each in self.tracked() for part in _variables_of(each) or [each]]

    def variables(self) -> list[Any]:
        """Return the variables of the state that exist by now."""
        return [variable for each in self.tracked() for variable in _variables_of(each)]

    def trained_variables(self) -> list[Any]:
        """Return those that exist by now and are not an optimizer's own."""
        return [v for each in self._apart_from_optimizers() for v in _variables_of(each)]

    def check_step(self, traced: Any) -> None:
        """See that a traced step changes what is to be trained. Neither takes a step nor blocks.

        Judged by the operations of its graph: what may write to a variable counts as a change, and
        so does Python code in it (``tf.py_function``), of which nobody knows what it does.

        Parameters
        ----------
        traced
            The step's ConcreteFunction; `tracked` then includes the variables it made.

        Raises
        ------
        ValueError
            If there is no variable to change, or the step changes none.
        """
        trained = self.trained_variables()
        known = self.variables()
        if not known:
            raise ValueError(
                "ctx.fit: there is no variable in state: pass the model that the step trains, "
                'state={"model": model, "optimizer": optimizer}'
            )
        written = _written(traced)
        # With an optimizer, weights are to be trained: a metric, or the moving averages of a batch
        # normalisation, change without that as well.
        optimized = any(map(is_optimizer, self.tracked()))
        weights = [variable for variable in trained if variable.trainable] if optimized else []
        # A state of optimizers alone says nothing of what they train.
        judged = weights or trained or known
        changed = {id(variable.handle) for variable in judged} & written.keys()
        if not changed and not _runs_python(traced):
            raise ValueError(
                f"ctx.fit: the step changes no variable in state ({_names(judged)}): apply "
                "gradients in the step, and pass what it trains in state"
            )
        kept = {id(variable.handle) for variable in known}
        lost = [v for handle, v in written.items() if handle not in kept and v is not None]
        if lost := [variable for variable in lost if variable.trainable]:
            log.warning(
                "ctx.fit: the step changes what is not in state (%s): no checkpoint holds it",
                _names(lost),
            )

    def not_finite(self) -> list[str]:
        """Return the names of the variables that hold NaN or an infinity.

        Each is looked at where it lies; blocks for as long as reading them there takes.
        """
        floating = [v for v in self.variables() if v.dtype.is_floating]
        if not floating:
            return []
        if self._looked_at != [id(variable) for variable in floating]:
            self._looked_at = [id(variable) for variable in floating]
            self._sound = _traced_look(floating)
        sound = self._sound().numpy()
        return [_name(v) for v, is_sound in zip(floating, sound, strict=True) if not is_sound]

    def _apart_from_optimizers(self) -> Iterator[Any]:
        import tensorflow as tf

        view = tf.train.TrackableView(self.checkpoint)
        seen: set[int] = set()
        left: list[Any] = [self.checkpoint]
        while left:
            each = left.pop()
            if id(each) in seen or is_optimizer(each):
                continue
            seen.add(id(each))
            yield each
            left.extend(view.children(each).values())


def is_optimizer(trackable: Any) -> bool:
    """Whether an object applies gradients, whichever Keras or TensorFlow it is of."""
    return callable(getattr(trackable, "apply_gradients", None))


def refuse_keras_3(state: Mapping[str, Any], arch: str) -> None:
    """Refuse objects of Keras 3, for architectures under which it does not train.

    Raises
    ------
    ConfigError
        Names the first one.
    """
    for each in TrainedState(state).tracked():
        if _is_of_keras_3(type(each)):
            raise ConfigError(
                f"{type(each).__name__} in state={{...}} is of Keras 3, which ctx.fit does not "
                f"train under --arch {arch}: take it from tf_keras"
            )


def _traced_look(variables: list[Any]) -> Any:
    """Return a function that says of each variable whether all of it is finite."""
    import tensorflow as tf

    def look() -> Any:
        sound = []
        for variable in variables:
            with tf.device(variable.device):
                sound.append(tf.reduce_all(tf.math.is_finite(variable.read_value())))
        return tf.stack(sound)

    return tf.function(look, autograph=False)


def _variables_of(each: Any) -> list[Any]:
    """Return the TensorFlow variables that an object is: one, the shards of one, or none."""
    import tensorflow as tf

    if isinstance(each, tf.Variable):
        return [each]
    if type(each).__name__ == "ShardedVariable":
        return list(each.variables)
    # A variable of Keras 3 holds one of TensorFlow's.
    value = getattr(each, "_value", None) if _is_of_keras_3(type(each)) else None
    return [value] if isinstance(value, tf.Variable) else []


def _is_of_keras_3(kind: type) -> bool:
    keras = sys.modules.get("keras")
    # Before TensorFlow 2.16 the package of that name is Keras 2.
    if keras is None or getattr(keras, "__version__", "2").startswith("2."):
        return False
    return any(base.__module__.partition(".")[0] == "keras" for base in kind.__mro__)


def _written(traced: Any) -> dict[int, Any]:
    """Return what a function may write to: handles by id, with their variable where it is known."""
    graph = traced.graph
    captured = {id(inner): id(outer) for outer, inner in graph.captures}
    variables = {id(variable.handle): variable for variable in graph.variables}
    written: dict[int, Any] = {}
    for operation in graph.get_operations():
        for place, tensor in enumerate(operation.inputs):
            handle = captured.get(id(tensor))
            if handle is not None and _may_write(operation, place):
                written[handle] = variables.get(handle)
    return written


def _may_write(operation: Any, place: int) -> bool:
    if operation.type in _READS:
        return False
    try:
        # On calls, branches and loops: the inputs that what they run only reads.
        return place not in operation.get_attr("_read_only_resource_inputs")
    except ValueError:
        return True


def _runs_python(traced: Any) -> bool:
    definition = traced.graph.as_graph_def()
    bodies = [definition.node, *(each.node_def for each in definition.library.function)]
    return any(node.op in _CALLS_PYTHON for body in bodies for node in body)


def _names(variables: list[Any]) -> str:
    names = ", ".join(_name(variable) for variable in variables[:_MOST_NAMED])
    more = len(variables) - _MOST_NAMED
    return f"{names} and {more} more" if more > 0 else names


def _name(variable: Any) -> str:
    return str(variable.name).removesuffix(":0")
