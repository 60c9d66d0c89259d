"""Keep a feed's directory: the index of its segments, the writer's error, the reader's retention.

The index is one append-only file of fixed records. A record is written by one write(2) after its
segment is whole, never crosses a page, and a torn one at the tail is ignored: readers in other
processes see complete segments only, at the cost of one read for any number of new ones.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tfos import errors
from tfos.errors import FeedError, TfosError

__all__ = [
    "IndexTail",
    "IndexWriter",
    "Retention",
    "SegmentEntry",
    "read_abort",
    "read_retention",
    "write_abort",
    "write_document",
    "write_retention",
]

_RECORD = struct.Struct("<IIQQQ")  # kind, place, number, rows, bytes: 32 bytes
_SEGMENT, _END = 0x5E6, 0xE2D
_INDEX, _ABORT, _RETENTION = "index", "abort.json", "retention.json"


class SegmentEntry(NamedTuple):
    """One segment: its number in order, in which of the spool's places it lies, its rows, bytes."""

    number: int
    place: int
    rows: int
    nbytes: int

    @property
    def file_name(self) -> str:
        """Name of the segment file in its place."""
        return f"{self.number:08d}.segment"


@dataclass(frozen=True)
class Retention:
    """What the reader still needs.

    Parameters
    ----------
    released
        Segments numbered below this may be removed.
    keeps
        Whether the reader means to come back to every segment (several epochs).
    """

    released: int
    keeps: bool


class IndexWriter:
    """Append to a new feed directory's index. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(directory / _INDEX, flags, 0o600)

    def publish(self, entry: SegmentEntry) -> None:
        """Make a whole segment known to readers; raises OSError when the record cannot be kept."""
        os.write(
            self._fd, _RECORD.pack(_SEGMENT, entry.place, entry.number, entry.rows, entry.nbytes)
        )

    def end(self) -> None:
        """Say that no segment follows."""
        os.write(self._fd, _RECORD.pack(_END, 0, 0, 0, 0))

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class IndexTail:
    """Follow an index that another process appends to. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _INDEX
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._done = 0
        self.ended = False

    def new_entries(self) -> list[SegmentEntry]:
        """Return the segments published since the last call; sets `ended` at the end mark.

        Raises
        ------
        FeedError
            If the index holds something else.
        """
        entries: list[SegmentEntry] = []
        while not self.ended and self._fd >= 0:
            data = os.pread(self._fd, 1024 * _RECORD.size, self._done)
            whole = len(data) - len(data) % _RECORD.size
            if not whole:
                break
            for kind, place, number, rows, nbytes in _RECORD.iter_unpack(data[:whole]):
                if kind not in (_SEGMENT, _END):
                    raise FeedError(f"{self._path} is damaged at byte {self._done}")
                self._done += _RECORD.size
                if kind == _END:
                    self.ended = True
                    break
                entries.append(SegmentEntry(number, place, rows, nbytes))
        return entries

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write_document(path: Path, document: Mapping[str, Any] | list[Any]) -> None:
    """Replace a small JSON file, mode 0600, so that readers see the old or the new one whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(document, file)
    os.replace(part, path)


def write_retention(directory: Path, retention: Retention) -> None:
    """Tell the writer what the reader still needs."""
    document = {"released": retention.released, "keeps": retention.keeps}
    write_document(directory / _RETENTION, document)


def read_retention(directory: Path) -> Retention | None:
    """Return what the reader still needs; None when no reader has opened the feed."""
    try:
        document = json.loads((directory / _RETENTION).read_text())
    except FileNotFoundError:
        return None
    return Retention(int(document["released"]), bool(document["keeps"]))


def write_abort(directory: Path, error: BaseException) -> None:
    """Tell readers why no more rows will come."""
    plain = {k: v for k, v in vars(error).items() if isinstance(v, str | int | float)}
    plain.pop("message", None)
    document = {"type": type(error).__name__, "message": str(error), "fields": plain}
    write_document(directory / _ABORT, document)


def read_abort(directory: Path) -> TfosError | None:
    """Return the writer's error, if it gave up: of its own type where that is one of tfos's."""
    try:
        document = json.loads((directory / _ABORT).read_text())
    except FileNotFoundError:
        return None
    kind = getattr(errors, document["type"], None)
    if isinstance(kind, type) and issubclass(kind, TfosError):
        return kind(document["message"], **document["fields"])
    return FeedError(f"the feed broke off: {document['type']}: {document['message']}")
