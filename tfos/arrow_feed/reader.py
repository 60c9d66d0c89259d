"""Open a role's spool in its training process and read its feeds as NumPy batches."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tfos import wire
from tfos.arrow_feed.blocks import Array, Column, Ragged
from tfos.arrow_feed.reading import Cut, Reading
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.segment_index import Retention, write_retention
from tfos.arrow_feed.selection import Selection
from tfos.arrow_feed.source import FeedSource
from tfos.errors import FeedError, SchemaMismatchError
from tfos.read_plan import FeedPosition, ReadPlan

__all__ = ["FeedBatch", "RaggedArray", "SpoolReader", "text_array"]

_POLL_S = 0.005


class RaggedArray(NamedTuple):
    """Rows of differing length: row i is ``values[row_splits[i] : row_splits[i + 1]]``."""

    values: Array
    row_splits: Array


Columns: TypeAlias = "dict[str, Array | RaggedArray]"


@dataclass(frozen=True)
class FeedBatch:
    """One batch.

    Parameters
    ----------
    columns
        Arrays by column name: [rows]; [rows, n] for lists of one length and stacks; a `RaggedArray`
        for others. Text is an object array of bytes. Nothing else refers to their memory.
    rows
        Rows of the batch.
    position
        How far the feed has been read with this batch; `ReadPlan.starting_at` continues there.
        After an epoch's last batch it is the start of the next epoch.
    """

    columns: Columns
    rows: int
    position: FeedPosition


class SpoolReader:
    """Read the feeds of one spool. Thread-safe; several readings may be open at once.

    Parameters
    ----------
    directory
        The spool's root, `SpoolWriter.directory`. Blocks until the writer has set it up.
    wait_timeout_s
        Longest to wait for Spark's next rows, ``feed.wait_timeout_s``.
    should_stop
        Polled while waiting and before every batch; true ends every reading.

    Raises
    ------
    FeedError
        If there is no spool at `directory` within `wait_timeout_s`.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        wait_timeout_s: float = 600.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._closed = False
        self._asked_to_stop = should_stop
        self._lock = threading.Lock()
        self._sources = {
            feed["name"]: FeedSource(
                feed["name"],
                [Path(d) for d in feed["directories"]],
                wire.from_json(FeedSchema, feed["schema"]),
                wait_timeout_s,
                self._should_stop,
            )
            for feed in _await_spool(Path(directory), wait_timeout_s, self._should_stop)
        }
        # Of each feed: the open readings, with the first segment each still needs.
        self._floors: dict[str, dict[Reading, int]] = {name: {} for name in self._sources}
        self._told: dict[str, Retention] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The feeds of the spool."""
        return tuple(self._sources)

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting for rows, over all readings."""
        return sum(source.waited_s for source in self._sources.values())

    def schema(self, name: str = "train") -> FeedSchema:
        """Return a feed's schema; raises SchemaMismatchError when there is no such feed."""
        return self._source(name).schema

    def rows(self, name: str = "train") -> int | None:
        """Return how many rows a feed has; None while Spark may add some. Does not block."""
        source = self._source(name)
        source.poll()
        return source.rows if source.complete else None

    def count(self, name: str = "train") -> int:
        """Return how many rows a feed has; blocks until Spark has sent them all.

        Raises
        ------
        FeedError
            If no row comes for `wait_timeout_s`.
        """
        return self._source(name).wait_for(sys.maxsize)

    def batches(self, plan: ReadPlan) -> Iterator[FeedBatch]:
        """Read a feed as a plan says. Blocks for rows that Spark has yet to send.

        Raises
        ------
        SchemaMismatchError
            If the plan names a feed or a column that is not there.
        FeedError
            If no row comes for `wait_timeout_s`, rows asked for were removed, or `plan.start` lies
            past the feed's end.
        TfosError
            The error that ended the writing, after the rows before it.
        """
        reading = self.open(plan)
        return self._batches(reading)

    def _batches(self, reading: Reading) -> Iterator[FeedBatch]:
        try:
            for cut in reading.cuts():
                yield FeedBatch(_columns(reading.selection, cut), cut.rows, cut.position)
        finally:
            self.finish(reading)

    def open(self, plan: ReadPlan) -> Reading:
        """Start a reading, to be ended by `finish`; raises SchemaMismatchError as `batches`."""
        source = self._source(plan.name)

        def passed(segment: int) -> None:
            self._retain(plan.name, reading, segment)

        reading = Reading(source, plan, self._should_stop, passed)
        source.poll()
        self._retain(plan.name, reading, source.segment_of(plan.start.row))
        return reading

    def finish(self, reading: Reading) -> None:
        """End a reading: it no longer holds rows in the spool. Idempotent."""
        with self._lock:
            self._floors[reading.plan.name].pop(reading, None)

    def list_widths(self, name: str) -> dict[str, int]:
        """Return the length of a feed's vectors and fixed lists, as far as its rows tell yet."""
        return self._source(name).list_widths()

    def close(self) -> None:
        """End every reading and let go of the files. Idempotent; safe from another thread."""
        self._closed = True
        for source in self._sources.values():
            source.close()

    def _should_stop(self) -> bool:
        return self._closed or self._asked_to_stop()

    def _source(self, name: str) -> FeedSource:
        try:
            return self._sources[name]
        except KeyError:
            raise SchemaMismatchError(
                f"no dataset {name!r}: this role is fed with {', '.join(self._sources) or 'none'}"
            ) from None

    def _retain(self, name: str, reading: Reading, segment: int) -> None:
        """Note the first segment a reading needs, and tell the writer when that changes a thing."""
        with self._lock:
            floors = self._floors[name]
            floors[reading] = segment
            # Rows that readings of one epoch have passed may go when the spool is full. Until then
            # they stay for a process that takes this one's place and starts at a checkpoint.
            keeps = any(other.plan.epochs != 1 for other in floors)
            retention = Retention(min(floors.values()), keeps)
            if self._told.get(name) != retention:
                self._told[name] = retention
                write_retention(self._sources[name].directory, retention)


def _await_spool(
    directory: Path, wait_timeout_s: float, should_stop: Callable[[], bool]
) -> list[dict[str, Any]]:
    deadline = time.monotonic() + wait_timeout_s
    while True:
        try:
            feeds: list[dict[str, Any]] = json.loads((directory / "spool.json").read_text())
            return feeds
        except FileNotFoundError as e:
            if should_stop() or time.monotonic() > deadline:
                raise FeedError(
                    f"no spool at {directory} within {wait_timeout_s:g} s: the role host has not "
                    "set it up (feed.wait_timeout_s)"
                ) from e
        time.sleep(_POLL_S)


def _columns(selection: Selection, cut: Cut) -> Columns:
    columns: Columns = {}
    for group, data in zip(selection.scalars, cut.scalars, strict=True):
        columns.update(zip(group.names, data, strict=True))
    for (name, _), data in zip(selection.stacks, cut.stacks, strict=True):
        columns[name] = data
    for (_, column), single in zip(selection.singles, cut.singles, strict=True):
        if not isinstance(single, Ragged):
            columns[column.name] = single
        elif column.shape == "scalar":
            columns[column.name] = text_array(single)
        else:
            columns[column.name] = RaggedArray(_elements(single.child), single.splits)
    return columns


def _elements(child: Column) -> Array:
    return text_array(child) if isinstance(child, Ragged) else child


def text_array(text: Ragged) -> Array:
    """Return text as an object array of bytes [rows]."""
    import pyarrow as pa  # the only use of Arrow on the reading side

    buffers = [None, pa.py_buffer(text.splits), pa.py_buffer(text.child)]
    array = pa.Array.from_buffers(pa.large_binary(), len(text.splits) - 1, buffers)
    return np.asarray(array.to_numpy(zero_copy_only=False))
