"""Match the variables that a checkpoint holds with those that a job has. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Match", "Variable", "WarmPlan", "describe_differences", "listed", "match"]

_SHOWN: Final = 4
# Names that TensorFlow gives where the program gives none, and to every sharded variable.
_GENERIC: Final = re.compile(r"|(.*/)?Variable(_\d+)?|ShardedVariable")
_ORDINAL: Final = re.compile(r"(.*/)?_(variables|momentums|velocities|accumulators)/\d+")
_COUNT: Final = re.compile(r".*/(iter|_iterations)")
_SLOT: Final = re.compile(r"(.*/)?(_variables/\d+|\.OPTIMIZER_SLOT/.*)")


@dataclass(frozen=True)
class Variable:
    """A variable, of a checkpoint or of a job.

    Parameters
    ----------
    path
        Where it is in the object graph, such as ``model/dense/kernel``.
    name
        Its own name; empty where unknown.
    shape, dtype
        As TensorFlow has them.
    setting
        Whether it is a setting of an optimizer, such as its learning rate.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    setting: bool = False

    def __str__(self) -> str:
        return f"{self.path} {list(self.shape)}"


@dataclass(frozen=True)
class Match:
    """A variable of a checkpoint, and the variable of the job that is the same one."""

    held: Variable
    has: Variable

    @property
    def fits(self) -> bool:
        """Whether the value can be taken as it is."""
        return self._alike and self.held.shape == self.has.shape

    @property
    def grows(self) -> bool:
        """Whether the job's has more rows (first dimension) and is the same otherwise."""
        return self._alike and self._same_rows and self.has.shape[0] > self.held.shape[0]

    @property
    def shrinks(self) -> bool:
        """Whether the job's has fewer rows and is the same otherwise."""
        return self._alike and self._same_rows and self.has.shape[0] < self.held.shape[0]

    @property
    def _alike(self) -> bool:
        return self.held.dtype == self.has.dtype

    @property
    def _same_rows(self) -> bool:
        held, has = self.held.shape, self.has.shape
        return len(held) == len(has) > 0 and held[1:] == has[1:]

    def __str__(self) -> str:
        other = "" if self.held.dtype == self.has.dtype else f" {self.held.dtype}"
        own = "" if self.held.dtype == self.has.dtype else f" {self.has.dtype}"
        source = "" if self.held.path == self.has.path else f" (from {self.held.path})"
        shapes = f"{list(self.held.shape)}{other} -> {list(self.has.shape)}{own}"
        return f"{self.has.path}{source} {shapes}"


@dataclass
class WarmPlan:
    """What a warm start does with each variable.

    Parameters
    ----------
    fitted, grown
        Taken as they are; taken, with further rows that keep their initial values.
    shrunk
        Of fewer rows in the job: a warm start refuses them.
    differing
        The same variable by its name, of another shape or type: the job's keeps its initial value.
    new
        The job's alone: initial values.
    dropped
        The checkpoint's alone.
    """

    fitted: list[Match] = field(default_factory=list)
    grown: list[Match] = field(default_factory=list)
    shrunk: list[Match] = field(default_factory=list)
    differing: list[Match] = field(default_factory=list)
    new: list[Variable] = field(default_factory=list)
    dropped: list[Variable] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.fitted)} taken as saved"]
        parts += _part("grown", self.grown) + _part("new", self.new)
        parts += _part("of another shape or type, so initial", self.differing)
        parts += _part("dropped", self.dropped)
        return "; ".join(parts)

    def to_json(self) -> dict[str, list[str]]:
        """Return every variable by what was done with it."""
        return {
            name: [str(each) for each in getattr(self, name)]
            for name in ("fitted", "grown", "differing", "new", "dropped")
        }


def match(holds: Iterable[Variable], has: Iterable[Variable]) -> WarmPlan:
    """Decide what a job takes of what a checkpoint holds.

    Variables are the same by their path; else by a name that the program gave and no other bears;
    else by the path without its first part, as a SavedModel's of a model that is one of several
    objects in the job's state. What an optimizer keeps in lists counts by its name first: its place
    there moves with each variable that comes or goes. An optimizer's settings stay the job's own.
    """
    left = {each.path: each for each in holds}
    own = list(has)
    plan = WarmPlan()
    open_: list[Variable] = []
    for each in own:
        if each.setting:
            left.pop(each.path, None)
            continue
        held = left.get(each.path)
        if held is not None and not _moved(held, each):
            _place(plan, Match(left.pop(each.path), each))
        else:
            open_.append(each)
    for own_key, their_key in ((_name, _name), (_inner_path, _path), (_path, _inner_path)):
        open_ = _match_by(own_key, their_key, open_, left, plan)
    plan.new += open_
    plan.dropped += left.values()
    return plan


def describe_differences(
    holds: Sequence[Variable], has: Sequence[Variable], *, shapes_only: bool = False
) -> str:
    """Say in what a checkpoint is not what a job can resume from; nothing where it is."""
    held = {each.path: each for each in holds}
    own = {each.path: each for each in has}
    shapes = [
        f"{path} is {list(held[path].shape)} {held[path].dtype} there and "
        f"{list(each.shape)} {each.dtype} here"
        for path, each in own.items()
        if path in held and (held[path].shape, held[path].dtype) != (each.shape, each.dtype)
    ]
    new = [str(each) for path, each in own.items() if path not in held]
    # What an optimizer keeps is made at the first step: that it is not there yet is no difference.
    optimizers = {path.rpartition("/")[0] for path in held if _COUNT.fullmatch(path)}
    gone = [
        str(each)
        for path, each in held.items()
        if path not in own
        and not _SLOT.fullmatch(path)
        and path.rpartition("/")[0] not in optimizers
    ]
    if not shapes and (shapes_only or not new):
        return ""
    parts = [listed(shapes)] if shapes else []
    parts += [f"the job has {listed(new)}, which the checkpoint lacks"] if new else []
    parts += [f"the checkpoint has {listed(gone)}, which the job lacks"] if gone else []
    return "; ".join(parts)


def _match_by(
    own_key: Callable[[Variable], str],
    their_key: Callable[[Variable], str],
    own: list[Variable],
    left: dict[str, Variable],
    plan: WarmPlan,
) -> list[Variable]:
    """Match by a key that one variable on each side has, and only what then fits but for its rows.

    Returns what is still without a match.
    """
    mine, theirs = Counter(map(own_key, own)), Counter(map(their_key, left.values()))
    held_by = {their_key(held): held for held in left.values()}
    unmatched = []
    for each in own:
        key = own_key(each)
        if key and mine[key] == theirs[key] == 1:
            pair = Match(held_by[key], each)
            if not _moved(pair.held, each) and (pair.fits or pair.grows or pair.shrinks):
                _place(plan, pair)
                del left[pair.held.path]
                continue
        unmatched.append(each)
    return unmatched


def _place(plan: WarmPlan, pair: Match) -> None:
    places = (
        (pair.fits, plan.fitted),
        (pair.grows, plan.grown),
        (pair.shrinks, plan.shrunk),
        (True, plan.differing),
    )
    next(place for applies, place in places if applies).append(pair)


def _moved(held: Variable, has: Variable) -> bool:
    """Whether two that stand at one place of a list are known to be different variables."""
    if _ORDINAL.fullmatch(has.path) is None or not _name(held) or not _name(has):
        return False
    return held.name != has.name


def _name(variable: Variable) -> str:
    return "" if _GENERIC.fullmatch(variable.name) else variable.name


def _path(variable: Variable) -> str:
    return "" if _ORDINAL.fullmatch(variable.path) else variable.path


def _inner_path(variable: Variable) -> str:
    return _path(variable).partition("/")[2]


def _part(what: str, items: Sequence[Any]) -> list[str]:
    return [f"{len(items)} {what}: {listed([str(each) for each in items])}"] if items else []


def listed(items: Sequence[str]) -> str:
    """Name the first of some variables, and how many more there are."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
