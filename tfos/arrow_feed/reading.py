"""Read a feed once as a plan says: cut batches across segments, shuffle, repeat, resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tfos.arrow_feed.blocks import Array, Block, Column, Piece, Ragged, gather, gather_group
from tfos.arrow_feed.selection import Selection
from tfos.arrow_feed.source import FeedSource
from tfos.errors import FeedError
from tfos.read_plan import FeedPosition, ReadPlan

__all__ = ["Cut", "Reading"]


@dataclass(frozen=True)
class Cut:
    """The columns of one batch, in fresh memory.

    Parameters
    ----------
    scalars
        One [columns, rows] array for each of `Selection.scalars`.
    stacks
        One [rows, columns] array for each of `Selection.stacks`.
    singles
        One column for each of `Selection.singles`.
    rows
        Rows of the batch.
    position
        How far the feed has been read with it; after an epoch's last batch the next one's start,
        unless Spark's end was not known yet.
    """

    scalars: list[Array]
    stacks: list[Array]
    singles: list[Column]
    rows: int
    position: FeedPosition


class Reading:
    """One reading of a feed. Used by one thread at a time.

    Parameters
    ----------
    source
        The feed's rows.
    plan
        How to read them.
    should_stop
        Polled before every batch; true ends the reading.
    passed
        Called, when the plan is of one epoch, with the number of the first segment still needed.
    """

    def __init__(
        self,
        source: FeedSource,
        plan: ReadPlan,
        should_stop: Callable[[], bool],
        passed: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self.selection = Selection.of(source.schema, plan)
        self._source = source
        self._should_stop = should_stop
        self._passed = passed
        self._segment = -1
        self._window: tuple[int, int, Block] | None = None
        self._needed, self._windowed = self.selection.narrowed()

    def cuts(self) -> Iterator[Cut]:
        """Yield the batches. Blocks for rows that Spark has yet to send, as `FeedSource.wait_for`.

        Raises
        ------
        FeedError
            If rows do not come in time, were removed, or `plan.start` lies past the feed's end.
        """
        start = self.plan.start
        epoch = start.epoch
        while self.plan.epochs is None or epoch < self.plan.epochs:
            first = start.row if epoch == start.epoch else 0
            row = first
            last = False
            while not (last or self._should_stop()):
                rows = self._next_rows(row)
                if rows == 0:
                    break
                last = self._ends_after(row + rows)
                after = FeedPosition(epoch + 1, 0) if last else FeedPosition(epoch, row + rows)
                yield self._cut(epoch, row, row + rows, after)
                row += rows
            # An epoch that gives nothing from its first row on would repeat for ever.
            if self._should_stop() or (first == row == 0):
                return
            epoch += 1

    def _next_rows(self, row: int) -> int:
        """Return how many rows the batch at `row` has; 0 at the epoch's end."""
        size = self.plan.batch_size
        known = self._source.wait_for(row + size)
        if known >= row + size:
            return size
        if not self._source.complete:
            return 0
        if known < row:
            raise FeedError(
                f"cannot continue {self.plan.name!r} at row {row}: it has {known} rows; the data "
                "is not what it was when the position was taken"
            )
        return 0 if self.plan.drop_remainder else known - row

    def _ends_after(self, row: int) -> bool:
        """Whether the epoch gives no batch from `row` on, as far as is known now.

        It does not wait: a batch that is there must not be held back for the row after it.
        """
        least = self.plan.batch_size if self.plan.drop_remainder else 1
        self._source.poll()
        return self._source.complete and self._source.rows < row + least

    def _cut(self, epoch: int, start: int, stop: int, after: FeedPosition) -> Cut:
        if self.plan.shuffle_rows:
            chosen, pieces = self._windowed, self._shuffled(epoch, start, stop)
        else:
            chosen, pieces = self.selection, self._source.pieces(start, stop)
            self._pass(self._source.segment_of(stop))
        return Cut(
            [gather_group(pieces, cut.group, cut.wanted) for cut in chosen.scalars],
            [gather_group(pieces, cut.group, cut.wanted, by_row=True) for _, cut in chosen.stacks],
            [gather([(p.block.singles[i], p) for p in pieces]) for i, _ in chosen.singles],
            stop - start,
            after,
        )

    def _pass(self, segment: int) -> None:
        if self.plan.epochs == 1 and segment != self._segment:
            self._segment = segment
            self._source.unmap_below(segment)
            self._passed(segment)

    def _shuffled(self, epoch: int, start: int, stop: int) -> list[Piece]:
        """Return pieces of permuted windows for rows `start` to `stop` of the shuffled order."""
        size = self.plan.shuffle_rows
        pieces = []
        while start < stop:
            number = start // size
            begin = number * size
            end = min(stop, begin + size)
            pieces.append(Piece(self._load_window(epoch, number), start - begin, end - begin))
            start = end
        return pieces

    def _load_window(self, epoch: int, number: int) -> Block:
        """Copy a window's rows together, permuted; the latest one is kept.

        The whole window is permuted at once, column by column: a column fits the processor's cache,
        which a batch picked from all columns of the window would miss at every value.
        """
        if self._window is not None and self._window[:2] == (epoch, number):
            return self._window[2]
        self._window = None
        size = self.plan.shuffle_rows
        start = number * size
        rows = min(self._source.wait_for(start + size) - start, size)
        order = np.random.default_rng((self.plan.seed, epoch, number)).permutation(rows)
        pieces = self._source.pieces(start, start + rows)
        self._pass(self._source.segment_of(start + rows))
        groups = [
            _permuted_group(pieces, group, wanted, order)
            for group, wanted in enumerate(self._needed)
        ]
        singles = [
            _permuted(gather([(p.block.singles[i], p) for p in pieces]), order)
            for i, _ in self.selection.singles
        ]
        self._window = (epoch, number, Block(rows, groups, singles))
        return self._window[2]


def _permuted_group(
    pieces: Sequence[Piece], group: int, wanted: Sequence[int], order: Array
) -> Array:
    """Return columns of a dtype group in another order, as [columns, rows]."""
    dtype = pieces[0].block.groups[group].dtype
    out = np.empty((len(wanted), len(order)), dtype)
    for position, column in enumerate(wanted):
        parts = [block.groups[group][column, start:stop] for block, start, stop in pieces]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        # mode="clip" spares NumPy a buffered copy; the indices are a permutation's, in range.
        np.take(joined, order, mode="clip", out=out[position])
    return out


def _permuted(column: Column, order: Array) -> Column:
    """Return a column's rows in another order."""
    if not isinstance(column, Ragged):
        return np.take(column, order, axis=0, mode="clip")
    starts = column.splits[order]
    lengths = column.splits[order + 1] - starts
    splits = np.zeros(len(order) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    # The elements' order: each row's run of positions, row after row.
    elements = np.repeat(starts - splits[:-1], lengths) + np.arange(splits[-1])
    return Ragged(splits, _permuted(column.child, elements))
