"""Give the rows of one feed by number, as they arrive: follow its index, map its segments."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfos.arrow_feed.blocks import Block, Piece
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.segment_index import IndexTail, SegmentEntry, read_abort
from tfos.arrow_feed.segments import map_segment
from tfos.errors import FeedError

__all__ = ["FeedSource"]

_FIRST_POLL_S = 0.0005
_LAST_POLL_S = 0.02
# What is mapped counts as this process's memory, for which YARN kills; mapping a segment anew is a
# small part of reading it.
_MAX_MAPPED = 8


class FeedSource:
    """The rows of one feed, numbered from 0 in the order they were spooled. Thread-safe.

    Parameters
    ----------
    name
        The feed, for messages.
    directories
        The feed's directory in each place of the spool; the index lies in the first.
    schema
        Its schema.
    wait_timeout_s
        Longest to wait for the next rows.
    should_stop
        Polled while waiting; true ends the wait.

    Attributes
    ----------
    complete
        Whether no rows will be added.
    waited_s
        Seconds spent waiting for rows.
    """

    def __init__(
        self,
        name: str,
        directories: Sequence[Path],
        schema: FeedSchema,
        wait_timeout_s: float,
        should_stop: Callable[[], bool],
    ) -> None:
        self.name = name
        self.schema = schema
        self.directory = directories[0]
        self._directories = directories
        self._wait_timeout_s = wait_timeout_s
        self._should_stop = should_stop
        self._tail = IndexTail(self.directory)
        self._entries: list[SegmentEntry] = []
        self._ends: list[int] = []  # rows up to and with each segment
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._lock = threading.Lock()
        self._widths: dict[str, int] = {}
        self.complete = False
        self.waited_s = 0.0

    @property
    def rows(self) -> int:
        """Rows known so far."""
        return self._ends[-1] if self._ends else 0

    def wait_for(self, rows: int) -> int:
        """Block until so many rows are there or no more will come; return how many there are.

        Returns
        -------
        int
            At least `rows`, or fewer when the feed is complete or `should_stop` became true.

        Raises
        ------
        FeedError
            If no row arrives for `wait_timeout_s`.
        TfosError
            The writer's error, if it gave up.
        """
        if rows <= self.rows or self.complete:
            return self.rows
        start = since = time.monotonic()
        pause = _FIRST_POLL_S
        try:
            while True:
                if self._refresh():
                    since, pause = time.monotonic(), _FIRST_POLL_S
                if rows <= self.rows or self.complete or self._should_stop():
                    return self.rows
                self._check(since)
                time.sleep(pause)
                pause = min(2 * pause, _LAST_POLL_S)
        finally:
            self.waited_s += time.monotonic() - start

    def poll(self) -> None:
        """Take in what has been published; does not wait."""
        if not self.complete:
            self._refresh()

    def _refresh(self) -> bool:
        """Take in new index entries; tell whether there were any."""
        with self._lock:
            entries = self._tail.new_entries()
            for entry in entries:
                self._entries.append(entry)
                self._ends.append(self.rows + entry.rows)
            # Last: who sees it, without the lock, has seen every row.
            self.complete = self._tail.ended
            return bool(entries)

    def _check(self, since: float) -> None:
        error = read_abort(self.directory)
        # What was published before the error may still be read: only a wait meets the error.
        if error is not None and not self._refresh():
            raise error
        if time.monotonic() - since > self._wait_timeout_s:
            raise FeedError(
                f"no rows of {self.name!r} from Spark for {self._wait_timeout_s:g} s after "
                f"{self.rows} rows; if the DataFrame takes longer to compute, raise "
                "feed.wait_timeout_s"
            )

    def segment_of(self, row: int) -> int:
        """Return the number of the segment that holds a row; past the last one for a later row."""
        return bisect_right(self._ends, row)

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Return the pieces of segments that make up rows `start` to `stop`, which are there.

        Raises
        ------
        FeedError
            If a segment has been removed because a reading of one epoch had passed it.
        """
        pieces = []
        segment = self.segment_of(start)
        while start < stop:
            end = self._ends[segment]
            begin = end - self._entries[segment].rows
            block = self._block(segment)
            pieces.append(Piece(block, start - begin, min(stop, end) - begin))
            start = end
            segment += 1
        return pieces

    def _block(self, segment: int) -> Block:
        with self._lock:
            block = self._blocks.get(segment)
            if block is None:
                block = self._blocks[segment] = self._map(self._entries[segment])
                if len(self._blocks) > _MAX_MAPPED:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(segment)
            return block

    def _map(self, entry: SegmentEntry) -> Block:
        try:
            block = map_segment(self._directories[entry.place] / entry.file_name, self.schema)
        except FileNotFoundError as e:
            raise FeedError(
                f"rows of {self.name!r} were removed to make room after a reading of one epoch had "
                "passed them; read with epochs=N instead of N readings, or raise feed.memory_bytes "
                "and feed.disk_bytes"
            ) from e
        for column, data in zip(self.schema.singles, block.singles, strict=True):
            if isinstance(data, np.ndarray):
                self._widths[column.name] = int(data.shape[1])
        return block

    def unmap_below(self, segment: int) -> None:
        """Let go of the mappings of earlier segments, so that removing them frees their memory."""
        with self._lock:
            for number in [n for n in self._blocks if n < segment]:
                del self._blocks[number]

    def list_widths(self) -> dict[str, int]:
        """Return the length of vectors and fixed lists, by column, as far as rows tell yet."""
        if not self._widths and self._entries:
            self._block(len(self._entries) - 1)
        return dict(self._widths)

    def close(self) -> None:
        """Let go of every mapping and the index. Idempotent."""
        with self._lock:
            self._blocks.clear()
            self._tail.close()
