"""Account for a spool's bytes: find room for a segment, remove read ones, wait for the reader."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfos.arrow_feed.places import Place
from tfos.arrow_feed.segment_index import Retention, SegmentEntry, read_retention
from tfos.errors import SpoolFullError

__all__ = ["FeedFiles", "Room"]

_POLL_S = 0.005


@dataclass
class FeedFiles:
    """The files of one feed: where its index lies, its segments' directories, those that exist."""

    name: str
    directory: Path
    segment_dirs: Sequence[Path]
    stored: deque[SegmentEntry] = field(default_factory=deque)

    def segment_path(self, entry: SegmentEntry) -> Path:
        """Return the path of a segment."""
        return self.segment_dirs[entry.place] / entry.file_name


class Room:
    """Hold the segments of all feeds of one spool within the limits of its places.

    Parameters
    ----------
    places
        Where segments may lie, the one to fill first at the front.
    feeds
        The feeds that share the room.
    wait_timeout_s
        Longest to wait for a reader to take rows while everything is full.
    cancelled
        Polled while waiting; true leaves at once.
    """

    def __init__(
        self,
        places: Sequence[Place],
        feeds: Sequence[FeedFiles],
        wait_timeout_s: float,
        cancelled: Callable[[], bool],
    ) -> None:
        self._places = places
        self._limits = [place.limit_bytes for place in places]
        self._used = [0] * len(places)
        self._feeds = feeds
        self._wait_timeout_s = wait_timeout_s
        self._cancelled = cancelled
        self.waited_s = 0.0

    def find(self, nbytes: int) -> int | None:
        """Return the place for a new segment; None when cancelled.

        Blocks while everything is full and a reader may still free something, for at most
        `wait_timeout_s` since the reader last did.

        Raises
        ------
        SpoolFullError
            If the readers keep everything for later epochs, or free nothing in time.
        """
        place = self._fit(nbytes)
        if place is not None:
            return place
        if nbytes > max(self._limits):
            raise self._full(f"the next rows take {nbytes}: lower feed.batch_rows")
        start = time.monotonic()
        try:
            return self._wait(nbytes, start)
        finally:
            self.waited_s += time.monotonic() - start

    def _wait(self, nbytes: int, since: float) -> int | None:
        seen: list[Retention | None] | None = None
        while not self._cancelled():
            now = [read_retention(feed.directory) for feed in self._feeds]
            if now != seen:
                seen, since = now, time.monotonic()
            place = self._fit(nbytes)
            if place is not None:
                return place
            may_free = any(
                feed.stored and not (kept is not None and kept.keeps)
                for feed, kept in zip(self._feeds, now, strict=True)
            )
            if not may_free:
                raise self._full("its readers keep every row for later epochs")
            if time.monotonic() - since > self._wait_timeout_s:
                raise self._full(
                    f"no reader took any row for {self._wait_timeout_s:g} s (feed.wait_timeout_s)"
                )
            time.sleep(_POLL_S)
        return None

    def _fit(self, nbytes: int) -> int | None:
        """Find a place, removing segments that no reader needs where that makes room."""
        for place, limit in enumerate(self._limits):
            if self._used[place] + nbytes <= limit or self._remove_released(place, nbytes):
                return place
        return None

    def _remove_released(self, place: int, nbytes: int) -> bool:
        """Remove released segments from a place, oldest first, until `nbytes` fit."""
        for feed in self._feeds:
            kept = read_retention(feed.directory)
            if kept is None or kept.keeps:
                continue
            for entry in [e for e in feed.stored if e.number < kept.released and e.place == place]:
                feed.segment_path(entry).unlink(missing_ok=True)
                feed.stored.remove(entry)
                self._used[place] -= entry.nbytes
                if self._used[place] + nbytes <= self._limits[place]:
                    return True
        return False

    def store(self, feed: FeedFiles, entry: SegmentEntry) -> None:
        """Count a segment that has been written."""
        feed.stored.append(entry)
        self._used[entry.place] += entry.nbytes

    def exhausted(self, place: int, error: OSError) -> None:
        """Note that a place's file system is full below its limit; a later place may do.

        Raises
        ------
        SpoolFullError
            If there is no later place.
        """
        if place == len(self._places) - 1:
            raise SpoolFullError(
                f"{self._places[place].path}: {os.strerror(error.errno or 0)} after "
                f"{self._used[place]} spooled bytes, below the limit of {self._limits[place]}; "
                "set feed.spool_dir to a directory with room",
                path=str(self._places[place].path),
                limit_bytes=self._limits[place],
            ) from error
        self._limits[place] = self._used[place]

    def _full(self, why: str) -> SpoolFullError:
        total = sum(self._limits)
        paths = ", ".join(str(place.path) for place in self._places)
        return SpoolFullError(
            f"the spool ({paths}) is full: {sum(self._used)} of {total} bytes, and {why}; raise "
            "feed.memory_bytes or feed.disk_bytes, use more workers, or read one epoch only",
            path=str(self._places[0].path),
            limit_bytes=total,
        )
