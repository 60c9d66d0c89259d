"""Answer a dataset op's calls, open, next and close, where the spool is. No TensorFlow.

A plan and a schema fix, on both sides alike, which arrays a call of `FeedService.next` returns:
`Transport` is that agreement.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tfos import wire
from tfos.arrow_feed.blocks import Array, Column, Ragged
from tfos.arrow_feed.reader import SpoolReader, text_array
from tfos.arrow_feed.reading import Cut, Reading
from tfos.arrow_feed.schema import FeedColumn, FeedSchema
from tfos.arrow_feed.selection import Selection
from tfos.errors import FeedError, SchemaMismatchError
from tfos.read_plan import FeedPosition, ReadPlan

__all__ = ["FeedService", "ReadingRequest", "Transport"]

# How often a reader that has ended says so.
_EMPTY_BATCH_EVERY_S = 0.02


@dataclass(frozen=True)
class Transport:
    """The arrays of one batch: their dtypes (``string`` for text) and static shapes, in order.

    First each of `Selection.scalars` as [columns, rows]: one array for all columns of a dtype,
    because each array of a call costs Python time and each column would. Then each of
    `Selection.stacks` as [rows, columns], then each of `Selection.singles`: [rows] text,
    [rows, n] lists, or two arrays for ragged ones, values and row_splits. Last the status, int64
    [4]: feed index, epoch and row after the batch, rows of the batch.
    """

    selection: Selection

    @property
    def is_ragged(self) -> bool:
        """Whether a column is ragged."""
        return any(column.shape == "ragged" for _, column in self.selection.singles)

    @cached_property
    def arrays(self) -> tuple[tuple[str, tuple[int | None, ...]], ...]:
        """(dtype, shape) of every array; None for an unknown length."""
        chosen = self.selection
        found: list[tuple[str, tuple[int | None, ...]]] = []
        found += [(cut.dtype, (len(cut.names), None)) for cut in chosen.scalars]
        found += [(cut.dtype, (None, len(cut.names))) for _, cut in chosen.stacks]
        for _, column in chosen.singles:
            if column.shape == "ragged":
                found += [(column.dtype, (None,)), ("int64", (None,))]
            else:
                found.append((column.dtype, (None, column.size)[: 1 + (column.shape == "fixed")]))
        return (*found, ("int64", (4,)))

    def pack(self, cut: Cut, feed_index: int) -> list[Array]:
        """Return a batch's arrays."""
        arrays = [*cut.scalars, *cut.stacks]
        for (_, column), single in zip(self.selection.singles, cut.singles, strict=True):
            arrays += _single_arrays(column, single)
        status = (feed_index, cut.position.epoch, cut.position.row, cut.rows)
        return [*arrays, np.array(status, np.int64)]

    def pack_empty(
        self, position: FeedPosition, feed_index: int, widths: Mapping[str, int]
    ) -> list[Array]:
        """Return the arrays of a batch without rows."""
        singles = [_empty(column, widths) for _, column in self.selection.singles]
        cut = Cut(
            [np.empty((len(c.names), 0), c.dtype) for c in self.selection.scalars],
            [np.empty((0, len(c.names)), c.dtype) for _, c in self.selection.stacks],
            singles,
            0,
            position,
        )
        return self.pack(cut, feed_index)


def _single_arrays(column: FeedColumn, single: Column) -> list[Array]:
    if not isinstance(single, Ragged):
        return [single]
    if column.shape == "scalar":
        return [text_array(single)]
    child = text_array(single.child) if isinstance(single.child, Ragged) else single.child
    return [child, single.splits]


def _empty(column: FeedColumn, widths: Mapping[str, int]) -> Column:
    if column.shape == "fixed":
        width = widths.get(column.name, column.size or 0)
        return np.empty((0, width), column.dtype)
    child: Column = np.empty(0, "uint8" if column.dtype == "string" else column.dtype)
    for _ in range((column.shape == "ragged") + (column.dtype == "string")):
        child = Ragged(np.zeros(1, np.int64), child)
    return child


@dataclass
class _OpenReading:
    reader: SpoolReader
    reading: Reading
    cuts: Iterator[Cut]
    transport: Transport
    endless: bool
    position: FeedPosition
    ended: bool = False
    # Where the batches ended that may not have been used yet, after the last that has.
    in_flight: deque[FeedPosition] = field(default_factory=deque)

    def hand_out(self, position: FeedPosition) -> FeedPosition:
        """Note a batch handed out; return the position up to which rows have surely been used."""
        self.position = position
        if len(self.in_flight) == self.in_flight.maxlen:
            self.in_flight.popleft()
        self.in_flight.append(position)
        return self.in_flight[0]


@dataclass(frozen=True)
class ReadingRequest:
    """What opens a reading.

    Parameters
    ----------
    plan
        How the dataset is to be read.
    schema
        The schema that the caller counts on: it must be the spool's.
    endless
        Whether batches without rows follow the last one.
    ahead
        How many batches may have been handed out that are not used yet.
    starts
        Where the process of each feed index continues, in place of ``plan.start``.
    """

    plan: ReadPlan
    schema: FeedSchema
    endless: bool
    ahead: int
    starts: Mapping[int, FeedPosition]


class FeedService:
    """Serve the feeds of this process to dataset ops. Thread-safe.

    Parameters
    ----------
    feeds
        The reader of each dataset, by name.
    feed_index
        This process's place among those that are fed alike; part of every status.
    continue_at
        Where an endless reading continues if that is later than where it was told to start: what
        a process that this one replaces had used is not read again.
    """

    def __init__(
        self,
        feeds: Mapping[str, SpoolReader],
        feed_index: int,
        continue_at: FeedPosition | None = None,
    ) -> None:
        self._feeds = dict(feeds)
        self._feed_index = feed_index
        self._continue_at = continue_at or FeedPosition()
        self._used: dict[str, FeedPosition] = {}
        self._readings: dict[int, _OpenReading] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def open(self, request: Any) -> np.int64:
        """Start a reading and return its number.

        `request` is a `ReadingRequest`, as `tfos.wire.to_text` writes it.
        """
        asked = wire.from_text(ReadingRequest, bytes(np.asarray(request).item()))
        plan = asked.plan
        start = asked.starts.get(self._feed_index)
        if start is not None:
            plan = plan.starting_at(start)
        if asked.endless:
            plan = plan.starting_at(max(plan.start, self._continue_at))
        reader = self._feeds.get(plan.name)
        if reader is None:
            raise SchemaMismatchError(
                f"no dataset {plan.name!r}: this process is fed with {', '.join(self._feeds)}"
            )
        if asked.schema != reader.schema(plan.name):
            raise SchemaMismatchError(f"the schema of dataset {plan.name!r} is not its spool's")
        reading = reader.open(plan)
        opened = _OpenReading(
            reader,
            reading,
            reading.cuts(),
            Transport(reading.selection),
            asked.endless,
            plan.start,
            in_flight=deque([plan.start], maxlen=asked.ahead + 1),
        )
        with self._lock:
            number = next(self._numbers)
            self._readings[number] = opened
        return np.int64(number)

    def next(self, number: Any) -> list[Array]:
        """Return the arrays of a reading's next batch; StopIteration at its end.

        Blocks for rows that Spark has yet to send, see `SpoolReader.batches`; of an endless reading
        that has ended, 20 ms.
        """
        opened = self._readings.get(int(number))
        if opened is None:
            raise FeedError(f"reading {int(number)} is not open in this process")
        if not opened.ended:
            cut = next(opened.cuts, None)
            if cut is not None:
                self._used[opened.reading.plan.name] = opened.hand_out(cut.position)
                return opened.transport.pack(cut, self._feed_index)
            opened.ended = True
            opened.reader.finish(opened.reading)
        if not opened.endless:
            raise StopIteration
        time.sleep(_EMPTY_BATCH_EVERY_S)
        widths = opened.reader.list_widths(opened.reading.plan.name)
        return opened.transport.pack_empty(opened.position, self._feed_index, widths)

    def count(self, name: Any) -> np.int64:
        """Return the rows of a dataset; blocks until Spark has sent them all."""
        dataset = bytes(np.asarray(name).item()).decode()
        reader = self._feeds.get(dataset)
        if reader is None:
            raise SchemaMismatchError(
                f"no dataset {dataset!r}: this process is fed with {', '.join(self._feeds)}"
            )
        return np.int64(reader.count(dataset))

    def close(self, number: Any) -> np.int64:
        """End a reading. Idempotent."""
        with self._lock:
            opened = self._readings.pop(int(number), None)
        if opened is not None:
            opened.reader.finish(opened.reading)
        return np.int64(0)

    def used(self, name: str) -> FeedPosition | None:
        """Return up to where a dataset's rows have surely been used; None before the first batch.

        With several readings of one dataset it follows the one that moved last.
        """
        return self._used.get(name)

    @property
    def open_readings(self) -> int:
        """How many readings have not been closed."""
        return len(self._readings)
