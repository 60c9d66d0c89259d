"""Read a feed once as a plan says: cut batches across segments, shuffle, repeat, resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tfos.arrow_feed.blocks import Array, Block, Column, Piece, gather, gather_group
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
        How far the feed has been read with it.
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
        self._window: tuple[int, int, Block, Array] | None = None
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
            while not self._should_stop():
                rows = self._next_rows(row)
                if rows == 0:
                    break
                row += rows
                yield self._cut(epoch, row - rows, row)
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

    def _cut(self, epoch: int, start: int, stop: int) -> Cut:
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
            FeedPosition(epoch, stop),
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
            block, order = self._load_window(epoch, number)
            begin = number * size
            end = min(stop, begin + size)
            pieces.append(Piece(block, 0, end - start, order[start - begin : end - begin]))
            start = end
        return pieces

    def _load_window(self, epoch: int, number: int) -> tuple[Block, Array]:
        """Copy a window's rows together and draw its permutation; the latest one is kept."""
        if self._window is not None and self._window[:2] == (epoch, number):
            return self._window[2:]
        self._window = None
        size = self.plan.shuffle_rows
        start = number * size
        rows = min(self._source.wait_for(start + size) - start, size)
        pieces = self._source.pieces(start, start + rows)
        groups = [
            gather_group(pieces, group, wanted) if wanted else np.empty((0, rows))
            for group, wanted in enumerate(self._needed)
        ]
        singles = [
            gather([(p.block.singles[i], p) for p in pieces]) for i, _ in self.selection.singles
        ]
        self._pass(self._source.segment_of(start + rows))
        order = np.random.default_rng((self.plan.seed, epoch, number)).permutation(rows)
        self._window = (epoch, number, Block(rows, groups, singles), order)
        return self._window[2:]
