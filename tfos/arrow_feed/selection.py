"""Work out which stored columns a reading takes and in what form it delivers them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tfos.arrow_feed.schema import FeedColumn, FeedSchema
from tfos.errors import SchemaMismatchError
from tfos.read_plan import ReadPlan

__all__ = ["GroupCut", "Selection"]


@dataclass(frozen=True)
class GroupCut:
    """Columns of one stored dtype group.

    Parameters
    ----------
    group
        Position of the group in `FeedSchema.groups`.
    names
        The columns taken, in order.
    wanted
        Their positions in the group; a slice when they are consecutive.
    """

    group: int
    dtype: str
    names: tuple[str, ...]
    wanted: slice | tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """The columns of a reading: parts are delivered in the order scalars, stacks, singles.

    Parameters
    ----------
    scalars
        Columns delivered one by one, by dtype group.
    stacks
        Stacked columns: new name and what it is made of.
    singles
        Text and list columns: position in `FeedSchema.singles`, and the column.
    """

    scalars: tuple[GroupCut, ...]
    stacks: tuple[tuple[str, GroupCut], ...]
    singles: tuple[tuple[int, FeedColumn], ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the delivered columns."""
        scalars = [name for cut in self.scalars for name in cut.names]
        stacks = [name for name, _ in self.stacks]
        return (*scalars, *stacks, *(column.name for _, column in self.singles))

    def narrowed(self) -> tuple[tuple[tuple[int, ...], ...], Selection]:
        """Return the positions needed of each stored group, and the selection out of just those."""
        cuts = [*self.scalars, *(cut for _, cut in self.stacks)]
        groups = 1 + max((cut.group for cut in cuts), default=-1)
        needed = [
            tuple(sorted({p for cut in cuts if cut.group == group for p in _positions(cut)}))
            for group in range(groups)
        ]

        def narrow(cut: GroupCut) -> GroupCut:
            places = tuple(needed[cut.group].index(p) for p in _positions(cut))
            return replace(cut, wanted=_as_slice(places))

        scalars = tuple(narrow(cut) for cut in self.scalars)
        stacks = tuple((name, narrow(cut)) for name, cut in self.stacks)
        singles = tuple((i, column) for i, (_, column) in enumerate(self.singles))
        return tuple(needed), Selection(scalars, stacks, singles)

    @classmethod
    def of(cls, schema: FeedSchema, plan: ReadPlan) -> Selection:
        """Apply a plan's `columns` and `stack` to a schema.

        Raises
        ------
        SchemaMismatchError
            If a column does not exist, or a stack mixes dtypes, holds text or lists, is empty or
            takes the name of another column.
        """
        stacked = {name for members in plan.stack.values() for name in members}
        for name in plan.columns or ():
            if name not in plan.stack:
                schema.column(name)
        asked = schema.names if plan.columns is None else plan.columns
        single = {name for name in asked if name not in stacked and name not in plan.stack}
        stacks = tuple(
            (name, _stack_cut(schema, name, members)) for name, members in plan.stack.items()
        )
        for name in plan.stack:
            if name in single or (name in schema.names and name not in stacked):
                raise SchemaMismatchError(f"stack {name!r}: a column has that name already")
        cuts = (
            _cut(group, dtype, names, [name for name in names if name in single])
            for group, (dtype, names) in enumerate(schema.groups)
        )
        singles = tuple((i, c) for i, c in enumerate(schema.singles) if c.name in single)
        selection = cls(tuple(cut for cut in cuts if cut.names), stacks, singles)
        if not selection.names:
            raise SchemaMismatchError("no column is asked for")
        return selection


def _stack_cut(schema: FeedSchema, name: str, members: Sequence[str]) -> GroupCut:
    columns = [schema.column(member) for member in members]
    described: Mapping[str, None] = {f"{c.name} ({c.shape} {c.dtype})": None for c in columns}
    if not columns or len({c.dtype for c in columns}) > 1 or not all(c.stackable for c in columns):
        raise SchemaMismatchError(
            f"stack {name!r} needs number or boolean columns of one dtype, got "
            f"{', '.join(described) or 'none'}; cast them in pre_train"
        )
    for group, (dtype, names) in enumerate(schema.groups):
        if dtype == columns[0].dtype:
            return _cut(group, dtype, names, members)
    raise AssertionError(f"no group of {columns[0].dtype}")


def _cut(group: int, dtype: str, names: Sequence[str], taken: Sequence[str]) -> GroupCut:
    places = tuple(names.index(name) for name in taken)
    return GroupCut(group, dtype, tuple(taken), _as_slice(places))


def _as_slice(places: tuple[int, ...]) -> slice | tuple[int, ...]:
    """Return consecutive positions as a slice: one copy instead of one a column."""
    start = places[0] if places else 0
    consecutive = places == tuple(range(start, start + len(places)))
    return slice(start, start + len(places)) if consecutive else places


def _positions(cut: GroupCut) -> Sequence[int]:
    if isinstance(cut.wanted, slice):
        return range(cut.wanted.start, cut.wanted.stop)
    return cut.wanted
