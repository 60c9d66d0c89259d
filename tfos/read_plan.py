"""Say how a fed dataset is to be read: batches, epochs, shuffle, columns, where to start. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

__all__ = ["FeedPosition", "ReadPlan", "continued_positions"]


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
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: it must be 1 or more")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}: it must be 1 or more, or None for no end")
        if self.shuffle_rows < 0:
            raise ValueError(f"shuffle_rows is {self.shuffle_rows}: it must be 0 or more")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: it must be between 0 and 2**63 - 1")
        # Callers may hand lists; frozen tuples keep the plan hashable in parts and safe to share.
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "stack", {k: tuple(v) for k, v in self.stack.items()})
        object.__setattr__(self, "start", FeedPosition(*self.start))

    def starting_at(self, start: FeedPosition) -> ReadPlan:
        """Return the same plan continued after `start`."""
        return replace(self, start=start)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON-ready mapping."""
        return {
            "name": self.name,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "shuffle_rows": self.shuffle_rows,
            "seed": self.seed,
            "columns": None if self.columns is None else list(self.columns),
            "stack": {k: list(v) for k, v in self.stack.items()},
            "drop_remainder": self.drop_remainder,
            "start": list(self.start),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReadPlan:
        """Read back what `to_json` wrote."""
        return cls(**data)


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
