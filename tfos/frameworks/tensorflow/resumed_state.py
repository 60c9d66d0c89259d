"""Resume with every value that a checkpoint holds, slots of sharded variables included.

A checkpoint has one value for all shards of a variable. What an optimizer keeps for a sharded
variable it makes at the first step, one variable for each shard, and TensorFlow does not always
restore these:

- ``tf_keras.optimizers.legacy``: reading the checkpoint makes one slot for the whole variable, on
  one parameter server, which is restored and never used. So the shards' slots are made before.
- ``tf_keras.optimizers``: what was saved unsharded is not restored. So it is read at the first
  step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfos.frameworks.tensorflow.warm_start import (
    SLOT_OF,
    copy_rows,
    holds,
    identity,
    is_sharded,
    objects_by_path,
    variables_of,
)
from tfos.frameworks.tensorflow.warm_start_plan import listed

__all__ = ["ResumedState", "unsaved_slots"]


class ResumedState:
    """The state of a job that resumes from one of its checkpoints.

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
        self._keys = holds(prefix)
        self._holds = {each.path: each for each in self._keys}
        self._there = {identity(each.variable) for each in variables_of(state)}
        self._shards = self._shards_with_slots()
        self._made: set[str] = set()

    @property
    def has_sharded(self) -> bool:
        """Whether a variable of the job is sharded."""
        return any(is_sharded(each.variable) for each in variables_of(self._state))

    @property
    def has_sharded_slots(self) -> bool:
        """Whether the checkpoint holds slots of variables that are sharded in the job."""
        return bool(self._shards)

    def make_sharded_slots(self) -> None:
        """Make the slots of these variables, for the checkpoint to be read into."""
        for optimizer, shards in self._shards:
            optimizer._create_all_weights(shards)
        self._made = self._sharded_slots()

    def take_late(self) -> None:
        """Read into the sharded variables that were made since the checkpoint was read.

        Raises
        ------
        ValueError
            If the checkpoint has one of another shape or type.
        """
        for each in variables_of(self._state):
            held = self._holds.get(each.described.path)
            if not is_sharded(each.variable) or identity(each.variable) in self._there:
                continue
            self._there.add(identity(each.variable))
            if held is None:
                continue
            if (held.shape, held.dtype) != (each.described.shape, each.described.dtype):
                raise ValueError(f"{each.described} cannot be restored from {held}")
            copy_rows(self._prefix, self._keys[held], held, each.variable)

    def unused(self) -> str:
        """Return the variables whose saved values the job did not take; empty if there are none.

        To be called once a step was run: what the job makes lazily exists then.
        """
        has = {each.described.path for each in variables_of(self._state)}
        has -= self._sharded_slots() - self._made
        return listed([str(each) for path, each in self._holds.items() if path not in has])

    def _shards_with_slots(self) -> list[tuple[Any, list[Any]]]:
        objects = objects_by_path(self._state)
        # By the path of the optimizer, and each variable once, of however many slots.
        shards: dict[str, dict[str, list[Any]]] = {}
        for path in self._holds:
            name, _, slot = path.partition(SLOT_OF)
            optimizer = slot.rpartition("/")[0]
            if _saves_sharded(objects.get(optimizer)) and is_sharded(objects.get(name)):
                shards.setdefault(optimizer, {})[name] = list(objects[name].variables)
        return [
            (objects[optimizer], [part for parts in kept.values() for part in parts])
            for optimizer, kept in shards.items()
        ]

    def _sharded_slots(self) -> set[str]:
        return {
            each.described.path
            for each in variables_of(self._state)
            if isinstance(each.variable, list)
        }


def unsaved_slots(state: Mapping[str, Any]) -> str:
    """Return the slots of sharded variables that no checkpoint will hold; empty if there are none.

    To be called once a step was traced, which makes them.
    """
    objects = objects_by_path(state)
    slots = [each.described for each in variables_of(state) if isinstance(each.variable, list)]
    owners = [each.path.partition(SLOT_OF)[2].rpartition("/")[0] for each in slots]
    return listed(
        [
            str(each)
            for each, owner in zip(slots, owners, strict=True)
            if not _saves_sharded(objects[owner])
        ]
    )


def _saves_sharded(optimizer: Any) -> bool:
    """Whether its slots of sharded variables are saved: Keras's are, TensorFlow 1's are not."""
    return hasattr(optimizer, "_create_all_weights")
