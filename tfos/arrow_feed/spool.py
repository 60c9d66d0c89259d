"""Write a role's Arrow batches into bounded segment files, where its training process reads them.

Runs in the role host (a Spark Python worker): no TensorFlow, no PySpark.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from tfos import wire
from tfos.arrow_feed.blocks import ColumnRows
from tfos.arrow_feed.convert import BatchConverter
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.room import FeedFiles, Room
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.segment_index import IndexWriter, SegmentEntry, write_abort, write_document
from tfos.arrow_feed.segments import overhead_bytes, write_segment
from tfos.config import FeedConfig
from tfos.errors import FeedError, SchemaMismatchError
from tfos.files.private import make_private

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SpoolWriter"]

log = logging.getLogger(__name__)

_INSTEAD = (
    "set feed.spool_dir, or spark.local.dir of its host, to a directory of root's or your own"
)
# The first segments are small, so that training starts while Spark still computes.
_FIRST_SEGMENT_BYTES = 256 << 10
_SEGMENT_GROWTH = 4
# Rows of a slow source wait no longer than this for their segment to fill.
_FLUSH_AFTER_S = 0.2
_FLUSH_CHECK_S = 0.1
# Only a flush that waits for room lasts longer; it ends by `cancelled` or its own deadline.
_FLUSH_JOIN_S = 2.0


@dataclass
class _Feed:
    """One feed being written."""

    files: FeedFiles
    schema: FeedSchema
    convert: BatchConverter
    index: IndexWriter
    target_bytes: int = _FIRST_SEGMENT_BYTES
    rows: int = 0
    segments: int = 0
    pending: list[ColumnRows] = field(default_factory=list)
    pending_bytes: int = 0
    pending_since: float = 0.0


class SpoolWriter:
    """Write the feeds of one role, side by side, into one spool. Thread-safe.

    Creates the spool's directories (0700) and files (0600); a thread publishes the rows of a slow
    source after 0.2 s. As a context manager it finishes, or on an error aborts, at the end.

    Parameters
    ----------
    places
        Where segments may lie (`choose_places`); the reader is given the first one's path.
    schemas
        The schema of each feed, by its name.
    config
        Limits, segment size, null policy, time-outs.
    cancelled
        Polled while blocked; true makes `write` leave at once.

    Raises
    ------
    FileExistsError
        If the spool exists already.
    ConfigError
        If a place lies in a directory of another user.
    """

    def __init__(
        self,
        places: Sequence[Place],
        schemas: Mapping[str, FeedSchema],
        config: FeedConfig,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._places = tuple(places)
        total = sum(place.limit_bytes for place in places)
        self._segment_bytes = min(config.segment_bytes, max(total // 8, 1))
        for place in places:
            make_private(place.path, instead=_INSTEAD)
        self._feeds = {
            name: self._new_feed(name, schema, config) for name, schema in schemas.items()
        }
        files = [feed.files for feed in self._feeds.values()]
        self._room = Room(self._places, files, config.wait_timeout_s, cancelled)
        self._describe()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._abandoned = False
        self._flush_error: BaseException | None = None
        self._flusher = threading.Thread(target=self._flush_slow, name="spool-flush", daemon=True)
        self._flusher.start()

    @property
    def directory(self) -> Path:
        """The spool's root, which the reader is given."""
        return self._places[0].path

    @property
    def rows(self) -> dict[str, int]:
        """Rows taken so far, by feed; those dropped for nulls are not counted."""
        return {name: feed.rows for name, feed in self._feeds.items()}

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting for readers to make room."""
        return self._room.waited_s

    def write(self, batch: pa.RecordBatch, dataset: str = "train") -> bool:
        """Add an Arrow batch to a feed.

        Blocks while the spool is full and its reader may free something: see `Room.find`.

        Returns
        -------
        bool
            False when `cancelled` became true while it was blocked, and ever after: rows are lost.

        Raises
        ------
        NullValueError, SchemaMismatchError
            If the rows do not fit the feed's schema and null policy.
        SpoolFullError
            If there is no room for them.
        """
        feed = self._feeds.get(dataset)
        if feed is None:
            raise SchemaMismatchError(f"no feed {dataset!r}: there are {', '.join(self._feeds)}")
        if self._abandoned:
            return False
        rows = feed.convert(batch)
        with self._lock:
            self._check_open()
            if rows is None:
                return True
            if not feed.pending:
                feed.pending_since = time.monotonic()
            feed.pending.append(rows)
            feed.pending_bytes += rows.nbytes
            feed.rows += rows.rows
            if feed.pending_bytes < min(feed.target_bytes, self._segment_bytes):
                return True
            return self._publish(feed)

    def finish(self) -> None:
        """Publish what is pending and mark every feed complete, unless `write` was cancelled.

        Idempotent; blocks as `write`.
        """
        with self._lock:
            if self._closed.is_set():
                return
            self._check_open()
            for feed in self._feeds.values():
                if feed.pending:
                    self._publish(feed)
                # Rows were lost: readers must not take what there is for all.
                if not self._abandoned:
                    feed.index.end()
        self._close()

    def abort(self, error: BaseException) -> None:
        """Tell the readers of every unfinished feed why no more rows come. Idempotent.

        On a disk that is full to the last byte they may not be told, and wait until they are ended
        or their own time is up.
        """
        if self._closed.is_set():
            return
        for feed in self._feeds.values():
            try:
                write_abort(feed.files.directory, error)
            except OSError as untold:
                name = feed.files.name
                log.warning("readers do not hear why the feed of %s ends: %s", name, untold)
        self._close()

    def remove(self) -> None:
        """Delete the spool, aborting it first if it is unfinished. Idempotent.

        A training process that still maps segments keeps them until it ends.
        """
        self.abort(FeedError("the spool was removed"))
        for place in self._places:
            shutil.rmtree(place.path, ignore_errors=True)

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.abort(error)

    def _new_feed(self, name: str, schema: FeedSchema, config: FeedConfig) -> _Feed:
        # The prefix keeps names such as ".." apart from directories of another meaning.
        folder = f"feed-{quote(name, safe='')}"
        dirs = [place.path / folder for place in self._places]
        for directory in dirs:
            directory.mkdir(mode=0o700)
        files = FeedFiles(name, dirs[0], dirs)
        return _Feed(files, schema, BatchConverter(schema, config.nulls), IndexWriter(dirs[0]))

    def _describe(self) -> None:
        """Write what the reader needs to find the feeds; its presence says the spool is ready."""
        feeds = [
            {
                "name": name,
                "directories": [str(directory) for directory in feed.files.segment_dirs],
                "schema": wire.to_json(feed.schema),
            }
            for name, feed in self._feeds.items()
        ]
        write_document(self.directory / "spool.json", feeds)

    def _publish(self, feed: _Feed) -> bool:
        """Write the pending rows as a segment and make it known; False when cancelled."""
        while True:
            place = self._room.find(feed.pending_bytes + overhead_bytes(feed.schema))
            if place is None:
                self._abandoned = True
                feed.pending, feed.pending_bytes = [], 0
                return False
            entry = SegmentEntry(feed.segments, place, sum(p.rows for p in feed.pending), 0)
            try:
                nbytes = write_segment(feed.files.segment_path(entry), feed.schema, feed.pending)
                entry = entry._replace(nbytes=nbytes)
                break
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._room.exhausted(place, e)
        self._room.store(feed.files, entry)
        feed.index.publish(entry)
        feed.segments += 1
        feed.pending, feed.pending_bytes = [], 0
        feed.target_bytes = min(feed.target_bytes * _SEGMENT_GROWTH, self._segment_bytes)
        return True

    def _flush_slow(self) -> None:
        """Publish rows that have waited too long for their segment to fill; runs in a thread."""
        while not self._closed.wait(_FLUSH_CHECK_S):
            with self._lock:
                if self._closed.is_set():
                    return
                try:
                    late = time.monotonic() - _FLUSH_AFTER_S
                    for feed in self._feeds.values():
                        if feed.pending and feed.pending_since < late:
                            self._publish(feed)
                except BaseException as e:  # raised by the next write or finish
                    self._flush_error = e
                    return

    def _check_open(self) -> None:
        if self._flush_error is not None:
            raise self._flush_error
        if self._closed.is_set():
            raise FeedError("the spool is closed: no rows can be written after its end")

    def _close(self) -> None:
        self._closed.set()
        if threading.current_thread() is not self._flusher:
            self._flusher.join(_FLUSH_JOIN_S)
        for feed in self._feeds.values():
            feed.index.close()
