"""Say how a fed dataset is to be read: batches, epochs, shuffle, columns, where to start. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from tfos.arguments import Arguments

__all__ = ["FeedPosition", "ReadPlan", "checked_reading", "continued_positions"]


class FeedPosition(NamedTuple):
    """How far a feed has been read: `row` rows of epoch `epoch` (both counted from 0) are done.

    After an epoch's last batch it is the start of the next, so a whole epoch is seen to be over;
    only in the first epoch, while Spark has not said that it was the last row, it may be told by
    the batch that follows.

    Rows are counted in reading order, after the shuffle, so a position means the same rows only
    under the same `ReadPlan` over the same spool.
    """

    epoch: int = 0
    row: int = 0


_BEGINNING = FeedPosition()


@dataclass(frozen=True)
class ReadPlan:
    """One way of reading a fed dataset.

    Parameters
    ----------
    name
        Which DataFrame of ``pre_train``: a key of its mapping; ``"train"`` when it returned one.
    batch_size
        Rows a batch, 1 or more. The last batch of an epoch is shorter unless `drop_remainder`.
    epochs
        Passes over the data, 1 or more; None for no end.
    shuffle_rows
        Rows of the shuffle window: each window of so many consecutive rows is permuted, by a
        permutation drawn from (`seed`, epoch, window). 0 keeps Spark's order.
    seed
        Seed of the shuffle, 0 to 2**63 - 1.
    columns
        Columns wanted, None for all. Others are not copied into tensors.
    stack
        New column name -> existing scalar columns of one dtype, delivered as one [batch, n] tensor
        in place of the n columns: much cheaper for wide tables.
    drop_remainder
        Leave out an epoch's last short batch.
    start
        Continue after this position instead of the beginning.

    Examples
    --------
    `TrainContext.dataset`, `batches` and `fit` take the parameters by name and make the plan:

    >>> ctx.dataset("train", batch_size=512, epochs=3, shuffle_rows=100_000, seed=1)

    Columns of one type as one tensor, and nothing else:

    >>> ctx.batches(columns=["x", "label"], stack={"x": ["x1", "x2"]})

    A plan of its own, to be kept or compared:

    >>> plan = ReadPlan(batch_size=512, epochs=None)
    >>> plan.starting_at(FeedPosition(epoch=2, row=1024)).start
    FeedPosition(epoch=2, row=1024)
    """

    name: str = "train"
    batch_size: int = 1024
    epochs: int | None = 1
    shuffle_rows: int = 0
    seed: int = 0
    columns: tuple[str, ...] | None = None
    stack: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drop_remainder: bool = False
    start: FeedPosition = _BEGINNING

    def __post_init__(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in checked_reading("ReadPlan", given).items():
            object.__setattr__(self, name, value)

    def starting_at(self, start: FeedPosition) -> ReadPlan:
        """Return the same plan continued after `start`."""
        return replace(self, start=start)


def checked_reading(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `ReadPlan`, or some of them, checked and in their plain types.

    Parameters
    ----------
    method
        What they are arguments of, for messages.
    given
        Values by field.

    Raises
    ------
    TypeError, ValueError
        One line that names method, argument, value and what is taken.
    """
    arguments = Arguments(method)
    return {name: _CHECKS[name](arguments, name, value) for name, value in given.items()}


def _columns(arguments: Arguments, name: str, value: Any) -> tuple[str, ...] | None:
    return None if value is None else arguments.names(name, value)


def _stack(arguments: Arguments, name: str, value: Any) -> dict[str, tuple[str, ...]]:
    what = 'a mapping of a new name to columns, such as {"x": ["a", "b"]}'
    stacks = arguments.mapping(name, value, what)
    return {key: arguments.names(f"{name}[{key!r}]", names) for key, names in stacks.items()}


def _start(arguments: Arguments, name: str, value: Any) -> FeedPosition:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise arguments.wrong_type(name, value, "a FeedPosition(epoch, row)")
    epoch, row = (
        arguments.integer(f"{name}.{part}", each, 0)
        for part, each in zip(FeedPosition._fields, value, strict=True)
    )
    return FeedPosition(epoch, row)


_CHECKS: Mapping[str, Callable[[Arguments, str, Any], Any]] = {
    "name": Arguments.text,
    "batch_size": lambda arguments, name, value: arguments.integer(name, value, 1),
    "epochs": lambda arguments, name, value: arguments.integer_or_none(name, value, 1, "no end"),
    "shuffle_rows": lambda arguments, name, value: arguments.integer(name, value, 0),
    "seed": lambda arguments, name, value: arguments.integer(name, value, 0, 2**63 - 1),
    "columns": _columns,
    "stack": _stack,
    "drop_remainder": Arguments.flag,
    "start": _start,
}


def continued_positions(
    positions: Mapping[int, FeedPosition], orders_then: Sequence[int], orders_now: Sequence[int]
) -> dict[int, FeedPosition]:
    """Return where each feed goes on, by its index; one that is left out begins at the beginning.

    Where a position within an epoch means other rows than it did, that epoch is read again from its
    start (each row at least once): of a feed whose rows come in another order, and of every feed
    where rows are dealt to another number of them.

    Parameters
    ----------
    positions
        How far each feed had been read.
    orders_then, orders_now
        What tells the order of each feed's rows, by feed index, when it was read and now.
    """
    if len(orders_then) != len(orders_now):
        epoch = min((p.epoch for p in positions.values()), default=0)
        return {feed: FeedPosition(epoch, 0) for feed in range(len(orders_now))}
    return {
        feed: position if orders_then[feed] == orders_now[feed] else FeedPosition(position.epoch, 0)
        for feed, position in positions.items()
    }
