"""Write rows to a segment file, one run of bytes a column, and map such a file back as a `Block`.

A segment holds NumPy columns rather than Arrow buffers: booleans, nulls and offsets are decoded
once, when it is written, not in every epoch; the columns of one dtype lie together, so that cutting
a batch out of all of them is one strided copy; and reading needs no Arrow library.

Layout: a JSON header padded to a multiple of 512 bytes, then buffers, each at a multiple of 64.
No reader looks for the file before the index names it, so it is written in place, never renamed.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfos.arrow_feed.blocks import Array, Block, Column, ColumnRows, Ragged
from tfos.arrow_feed.schema import FeedColumn, FeedSchema
from tfos.errors import FeedError

__all__ = ["map_segment", "overhead_bytes", "write_segment"]

_ALIGNMENT = 64
_HEADER_BYTES = 512
_MAX_VECTORS = 1024  # IOV_MAX on Linux
_PADDING = memoryview(bytes(_ALIGNMENT))


class _Buffers:
    """Collect the pieces of a segment's buffers and where each begins."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        self.size = 0
        self.table: list[tuple[int, int]] = []

    def add(self, arrays: Sequence[Array]) -> None:
        """Append one buffer: arrays end to end, padded."""
        start, count = self.size, 0
        for array in arrays:
            count += array.size
            if array.size:
                self.pieces.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                self.size += array.nbytes
        padding = -self.size % _ALIGNMENT
        if padding:
            self.pieces.append(_PADDING[:padding])
            self.size += padding
        self.table.append((start, count))


def overhead_bytes(schema: FeedSchema) -> int:
    """Return the most bytes that a segment takes beyond its rows: header and padding."""
    buffers = len(schema.columns) + 2 * len(schema.singles)
    return 2 * _HEADER_BYTES + buffers * (_ALIGNMENT + 32)


def write_segment(path: Path, schema: FeedSchema, parts: Sequence[ColumnRows]) -> int:
    """Write consecutive rows as one segment file, mode 0600, and return its bytes.

    Uses write(2) alone: a full file system is an error here, but a SIGBUS in a mapping.

    Parameters
    ----------
    path
        The file; it must not exist.
    parts
        One or more batches of rows of `schema`.

    Raises
    ------
    OSError
        If it cannot be written (ENOSPC: no room); nothing is left behind.
    """
    buffers = _Buffers()
    for group, (_, names) in enumerate(schema.groups):
        for position in range(len(names)):
            buffers.add([part.groups[group][position] for part in parts])
    for single in range(len(schema.singles)):
        _add_column(buffers, [part.singles[single] for part in parts])
    widths = [c.shape[1] if isinstance(c, np.ndarray) else 0 for c in parts[0].singles]
    document = {"rows": sum(p.rows for p in parts), "widths": widths, "buffers": buffers.table}
    header = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    header += b" " * (-len(header) % _HEADER_BYTES)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, [memoryview(header), *buffers.pieces])
        finally:
            os.close(fd)
    except BaseException:
        os.unlink(path)
        raise
    return len(header) + buffers.size


def _add_column(buffers: _Buffers, columns: Sequence[Column]) -> None:
    """Append a column outside the groups: an array, or its splits and then its elements."""
    children: list[Column] = []
    splits: list[Array] = [np.zeros(1, np.int64)]
    total = 0
    for column in columns:
        if isinstance(column, Ragged):
            splits.append(column.splits[1:] + total)
            total += int(column.splits[-1])
            children.append(column.child)
    if not children:
        buffers.add([c for c in columns if isinstance(c, np.ndarray)])
        return
    buffers.add(splits)
    _add_column(buffers, children)


def _write_all(fd: int, pieces: list[memoryview]) -> None:
    """Write every piece; writev may stop anywhere."""
    done = 0
    while done < len(pieces):
        written = os.writev(fd, pieces[done : done + _MAX_VECTORS])
        while done < len(pieces) and written >= len(pieces[done]):
            written -= len(pieces[done])
            done += 1
        if written:
            pieces[done] = pieces[done][written:]


def map_segment(path: Path, schema: FeedSchema) -> Block:
    """Map a segment file; its arrays are read-only and keep the mapping alive.

    Raises
    ------
    FileNotFoundError
        If the segment has been removed.
    FeedError
        If the file is not a segment of `schema`.
    """
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    end = mapped.find(b"\n")
    try:
        document = json.loads(mapped[:end])
        base = end + 1 + (-(end + 1) % _HEADER_BYTES)
        return _block(mapped, base, document, schema)
    except (ValueError, KeyError, StopIteration) as e:
        raise FeedError(f"{path} is not a segment of its feed: {e}") from e


def _block(mapped: mmap.mmap, base: int, document: Any, schema: FeedSchema) -> Block:
    table: Iterator[tuple[int, int]] = iter(document["buffers"])
    rows: int = document["rows"]

    def array(dtype: str) -> Array:
        start, count = next(table)
        return np.frombuffer(mapped, dtype, count, base + start)

    def column(feed_column: FeedColumn, width: int) -> Column:
        if feed_column.shape == "fixed":
            return array(feed_column.dtype).reshape(rows, width)
        depth = (feed_column.shape == "ragged") + (feed_column.dtype == "string")
        splits = [array("int64") for _ in range(depth)]
        child: Column = array("uint8" if feed_column.dtype == "string" else feed_column.dtype)
        for level in reversed(splits):
            child = Ragged(level, child)
        return child

    groups = []
    for dtype, names in schema.groups:
        starts = [next(table)[0] for _ in names]
        itemsize = np.dtype(dtype).itemsize
        # Columns of a group are padded alike, so one stride spans them.
        stride = starts[1] - starts[0] if len(starts) > 1 else rows * itemsize
        groups.append(
            np.ndarray((len(names), rows), dtype, mapped, base + starts[0], (stride, itemsize))
        )
    singles = [column(c, w) for c, w in zip(schema.singles, document["widths"], strict=True)]
    return Block(rows, groups, singles)
