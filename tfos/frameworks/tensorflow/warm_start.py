"""Begin training from the variables of another checkpoint or SavedModel, as far as they fit.

What a checkpoint holds is read by TensorFlow's own reader; what a job has is found by walking its
object graph; `warm_start_plan` says which are the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tfos.errors import ConfigError
from tfos.frameworks.tensorflow.trained_state import is_optimizer
from tfos.frameworks.tensorflow.warm_start_plan import (
    Variable,
    WarmPlan,
    describe_differences,
    match,
)

__all__ = [
    "SLOT_OF",
    "WarmStart",
    "after_tracing",
    "copy_rows",
    "differences",
    "holds",
    "identity",
    "is_sharded",
    "objects_by_path",
    "this_process",
    "variables_of",
]

log = logging.getLogger(__name__)

_VALUE: Final = "/.ATTRIBUTES/VARIABLE_VALUE"
_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
_COUNTS: Final = ("iter", "iterations", "_iterations")
_NOT_OF_MODELS: Final = ("save_counter",)
SLOT_OF: Final = "/.OPTIMIZER_SLOT/"
"""Between the paths of a variable and of the optimizer that keeps the slot."""


class WarmStart:
    """The variables of a job's state, taken from a checkpoint where they fit.

    Belongs to the process that makes the variables. A variable that is made only at the first step,
    such as an optimizer's slot, is taken as soon as the step has been traced: before it is run.

    Parameters
    ----------
    prefix
        Of the checkpoint's files, on this host; they stay until the first step.
    state
        The job's trackables by name.
    """

    def __init__(self, prefix: str, state: Mapping[str, Any]) -> None:
        self._prefix = prefix
        self._state = state
        self._holds = holds(prefix)
        self._seen: set[int] = set()
        self._over = False
        self.plan = WarmPlan()

    def apply(self) -> None:
        """Take every variable of the job that was not there before, and plan again over all."""
        if self._over:
            return
        has = variables_of(self._state)
        self.plan = match(self._holds, [each.described for each in has])
        targets = {each.described.path: each for each in has}
        if self.plan.shrunk:
            return  # refused: nothing is to be half taken
        for pair in (*self.plan.fitted, *self.plan.grown):
            target = targets[pair.has.path]
            if identity(target.variable) not in self._seen:
                copy_rows(self._prefix, self._holds[pair.held], pair.held, target.variable)
        self._seen |= {identity(each.variable) for each in has}

    def end(self) -> None:
        """Take nothing more: a step has been run.

        Raises
        ------
        ConfigError
            If the job has fewer rows of a variable than the checkpoint holds.
        """
        self._over = True
        self.check()
        for name, variables in self.plan.to_json().items():
            log.debug("warm start, %s: %s", name, ", ".join(variables) or "none")

    def check(self) -> None:
        """Refuse what would lose rows; raises as `end`."""
        if self.plan.shrunk:
            told = ", ".join(str(pair) for pair in self.plan.shrunk)
            raise ConfigError(
                f"a warm start would lose rows: {told}; give the variable at least the rows it "
                "had, or another name in state={...} to begin it anew"
            )


def after_tracing(step: Callable[[Any], Any], act: Callable[[], None]) -> Callable[[Any], Any]:
    """Return the step that also acts on the variables its tracing has made, before it is run."""
    import tensorflow as tf

    apart = tf.autograph.experimental.do_not_convert(act)

    def traced(batch: Any) -> Any:
        result = step(batch)
        with tf.init_scope():
            apart()
        return result

    inner = getattr(step, "python_function", None)
    if inner is not None:
        # Under ps the function within a tf.function is what is run.
        traced.python_function = after_tracing(inner, act)  # type: ignore[attr-defined]
    return traced


def differences(prefix: str, state: Any, *, shapes_only: bool = False) -> str:
    """Say in what a checkpoint is not what these trackables can resume from; nothing if it is."""
    has = [each.described for each in variables_of(state)]
    return describe_differences([*holds(prefix)], has, shapes_only=shapes_only)


def holds(prefix: str) -> dict[Variable, str]:
    """Return the variables that a checkpoint holds, each with its key in it."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    # Of a graph's Saver every key is a variable's name.
    named = _GRAPH not in shapes
    names = {} if named else _names(reader.get_tensor(_GRAPH))
    found = {}
    for key, shape in shapes.items():
        if not named and not key.endswith(_VALUE):
            continue
        path = key if named else key[: -len(_VALUE)]
        if path not in _NOT_OF_MODELS:
            name = key if named else names.get(key, "")
            found[Variable(path, name, tuple(shape), types[key].name)] = key
    return found


def _names(graph: bytes) -> dict[str, str]:
    """Return each variable's own name, by its key, from a checkpoint's record of its objects."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    record = TrackableObjectGraph()
    record.ParseFromString(graph)
    return {a.checkpoint_key: a.full_name for node in record.nodes for a in node.attributes}


@dataclass(frozen=True)
class _Target:
    described: Variable
    variable: Any
    """A tf.Variable, one that is sharded by rows, or the list of a sharded one's slots."""


def variables_of(state: Any) -> list[_Target]:
    """Return every variable of some trackables, each once, by its shortest path.

    `state` is a mapping of them, or the one object that they belong to.
    """
    objects, paths, parents = _walk(state)
    variables = [each for each in objects if _is_variable(each)]
    found = []
    for each in variables:
        path = paths[id(each)]
        if path not in _NOT_OF_MODELS:
            setting = is_optimizer(parents[id(each)]) and path.rpartition("/")[2] not in _COUNTS
            found.append(_target(path, each, setting))
    optimizers = [each for each in objects if hasattr(each, "get_slot_names")]
    for optimizer in optimizers:
        for variable in variables:
            for slot in optimizer.get_slot_names():
                kept = _slot_of(optimizer, variable, slot)
                if kept is not None:
                    inside = f"{paths[id(variable)]}{SLOT_OF}{paths[id(optimizer)]}/{slot}"
                    found.append(_target(inside, kept, False))
    return found


def objects_by_path(state: Any) -> dict[str, Any]:
    """Return every object of some trackables by its shortest path."""
    objects, paths, _ = _walk(state)
    return {paths[id(each)]: each for each in objects}


def _walk(state: Any) -> tuple[list[Any], dict[int, str], dict[int, Any]]:
    """Return every object of some trackables; by the id of each its shortest path and parent."""
    import tensorflow as tf

    root = tf.train.Checkpoint(**state) if isinstance(state, Mapping) else state
    view = tf.train.TrackableView(root)
    paths: dict[int, str] = {id(root): ""}
    objects: list[Any] = []
    parents: dict[int, Any] = {}
    waiting: deque[Any] = deque([root])
    while waiting:
        owner = waiting.popleft()
        objects.append(owner)
        for name, child in view.children(owner).items():
            if id(child) not in paths:
                paths[id(child)] = f"{paths[id(owner)]}/{_escaped(name)}".lstrip("/")
                parents[id(child)] = owner
                waiting.append(child)
    return objects, paths, parents


def _target(path: str, variable: Any, setting: bool) -> _Target:
    parts = _components(variable)
    shape = tuple(parts[0].shape)
    if len(parts) > 1:
        shape = (sum(int(part.shape[0]) for part in parts), *shape[1:])
    name = "" if len(parts) > 1 else str(parts[0].name).partition(":")[0]
    return _Target(Variable(path, name, shape, parts[0].dtype.name, setting), variable)


def _is_variable(value: Any) -> bool:
    import tensorflow as tf

    return isinstance(value, tf.Variable) or is_sharded(value)


def is_sharded(value: Any) -> bool:
    """Whether it is a variable that parameter servers hold in parts, each some of its rows."""
    return type(value).__name__ == "ShardedVariable"


def _components(variable: Any) -> Sequence[Any]:
    if isinstance(variable, list):
        return variable
    return list(variable.variables) if is_sharded(variable) else [variable]


def identity(variable: Any) -> int:
    """Return what tells a variable, sharded or not, from others: a list of slots is made anew."""
    return id(_components(variable)[0])


def _slot_of(optimizer: Any, variable: Any, slot: str) -> Any:
    """Return what an optimizer keeps for a variable under a name; None where it has not yet."""
    kept = []
    for part in _components(variable):
        with suppress(KeyError, TypeError, AttributeError):
            kept.append(optimizer.get_slot(part, slot))
    if len(kept) < len(_components(variable)) or any(each is None for each in kept):
        return None
    return kept if len(kept) > 1 else kept[0]


def _escaped(name: str) -> str:
    return name.replace(".", "..").replace("/", ".S")


def copy_rows(prefix: str, key: str, held: Variable, variable: Any) -> None:
    """Copy the rows that a checkpoint holds into a variable; those beyond keep their values.

    Reads for one part of a sharded variable at a time: no process needs room for all of it, where
    the checkpoint is sharded too.
    """
    import tensorflow as tf

    first = 0
    for part in _components(variable):
        rows = int(part.shape[0]) if part.shape.rank else 1
        taken = min(rows, held.shape[0] - first) if held.shape else 1
        if taken <= 0:
            break
        value = _read(prefix, key, held, first, taken)
        if taken == rows:
            part.assign(value)
        else:
            part.scatter_update(tf.IndexedSlices(value, tf.range(taken)))
        first += taken


def _read(prefix: str, key: str, held: Variable, first: int, rows: int) -> Any:
    import tensorflow as tf

    spec = ""
    if held.shape:
        dims = " ".join(str(size) for size in held.shape)
        rest = ":-" * (len(held.shape) - 1)
        spec = f"{dims} {first},{rows}{rest}"
    # Here, not where the variable is: parameter servers may be on hosts that share no disk.
    with tf.device(this_process()):
        return tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[key],
            shape_and_slices=[spec],
            dtypes=[tf.as_dtype(held.dtype)],
        )[0]


def this_process() -> str:
    """Return the CPU device of this process, by its name in the cluster if it is in one."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        return str(tf.constant(0).device)
