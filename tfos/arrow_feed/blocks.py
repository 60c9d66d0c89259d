"""Hold many rows of columns as NumPy arrays, and cut, join and permute them without a row loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Block",
    "Column",
    "ColumnRows",
    "Piece",
    "Ragged",
    "aligned_empty",
    "gather",
    "gather_group",
]

Array = npt.NDArray[Any]

# TensorFlow takes a NumPy array over without a copy only when it starts at such an address.
_ALIGNMENT = 64


class Ragged(NamedTuple):
    """Rows of differing length: row i holds elements ``splits[i]`` to ``splits[i + 1]`` of `child`.

    `splits` is int64 [rows + 1], not necessarily from 0. Text is a Ragged of uint8, a list of texts
    a Ragged of those.
    """

    splits: Array
    child: Column


Column: TypeAlias = "Array | Ragged"
"""An array whose first axis is the row, or a `Ragged`."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a feed.

    Parameters
    ----------
    rows
        How many.
    groups
        One array [columns, rows] for each dtype of `FeedSchema.groups`.
    singles
        The columns of `FeedSchema.singles`.
    """

    rows: int
    groups: Sequence[Array]
    singles: Sequence[Column]


@dataclass(frozen=True)
class ColumnRows:
    """The rows of one Arrow batch as columns: like a `Block`, its groups not yet joined.

    Parameters
    ----------
    rows
        How many, 1 or more.
    groups
        For each dtype of `FeedSchema.groups`, one [rows] array a column. They may alias the batch.
    singles
        The columns of `FeedSchema.singles`.
    nbytes
        Bytes of it all.
    """

    rows: int
    groups: list[list[Array]]
    singles: list[Column]
    nbytes: int


class Piece(NamedTuple):
    """Some rows of a block: `start` to `stop`, or the stop - start many that `order` names."""

    block: Block
    start: int
    stop: int
    order: Array | None = None

    @property
    def rows(self) -> int:
        """How many rows it is."""
        return self.stop - self.start


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised C-ordered array that TensorFlow can take over without copying."""
    kind = np.dtype(dtype)
    size = kind.itemsize
    for length in shape:
        size *= length
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % _ALIGNMENT
    return raw[offset : offset + size].view(kind).reshape(shape)


def gather_group(
    pieces: Sequence[Piece], group: int, wanted: slice | Sequence[int], by_row: bool = False
) -> Array:
    """Copy some columns of a dtype group out of consecutive pieces.

    Returns
    -------
    Array
        [columns, rows], or [rows, columns] when `by_row`; fresh memory that nothing else refers to.
    """
    source = pieces[0].block.groups[group]
    if isinstance(wanted, slice):
        count = len(range(*wanted.indices(source.shape[0])))
    else:
        count = len(wanted)
    rows = sum(piece.rows for piece in pieces)
    out = aligned_empty((rows, count) if by_row else (count, rows), source.dtype)
    by_column = out.T if by_row else out
    done = 0
    for piece in pieces:
        target = by_column[:, done : done + piece.rows]
        done += piece.rows
        data = piece.block.groups[group]
        if isinstance(wanted, slice):
            _copy_rows(data[wanted], piece, target)
        else:
            for position, column in enumerate(wanted):
                _copy_rows(data[column], piece, target[position])
    return out


def _copy_rows(data: Array, piece: Piece, target: Array) -> None:
    """Copy a piece's rows, the last axis of `data`, into `target`."""
    if piece.order is None:
        target[...] = data[..., piece.start : piece.stop]
    else:
        # mode="clip" spares NumPy a buffered copy; the indices are a permutation's, in range.
        np.take(data, piece.order, axis=-1, out=target, mode="clip")


def gather(pieces: Sequence[tuple[Column, Piece]]) -> Column:
    """Copy the rows of consecutive pieces of one column into fresh memory.

    Parameters
    ----------
    pieces
        The column of each piece's block, and the piece.
    """
    first = pieces[0][0]
    if isinstance(first, Ragged):
        return _gather_ragged([(c, p) for c, p in pieces if isinstance(c, Ragged)])
    rows = sum(piece.rows for _, piece in pieces)
    out = aligned_empty((rows, *first.shape[1:]), first.dtype)
    done = 0
    for column, piece in pieces:
        target = out[done : done + piece.rows]
        done += piece.rows
        if piece.order is None:
            target[...] = column[piece.start : piece.stop]
        else:
            np.take(column, piece.order, axis=0, out=target, mode="clip")
    return out


def _gather_ragged(pieces: Sequence[tuple[Ragged, Piece]]) -> Ragged:
    splits = aligned_empty((sum(piece.rows for _, piece in pieces) + 1,), np.int64)
    splits[0] = 0
    children: list[tuple[Column, Piece]] = []
    row = total = 0
    for column, piece in pieces:
        if piece.order is None:
            bounds = column.splits[piece.start : piece.stop + 1]
            lengths = np.diff(bounds)
            start, stop = int(bounds[0]), int(bounds[-1])
            children.append((column.child, Piece(piece.block, start, stop)))
        else:
            starts = column.splits[piece.order]
            lengths = column.splits[piece.order + 1] - starts
            index = _element_index(starts, lengths)
            children.append((column.child, Piece(piece.block, 0, len(index), index)))
        ends = splits[row + 1 : row + 1 + piece.rows]
        np.cumsum(lengths, out=ends)
        ends += total
        row += piece.rows
        total += children[-1][1].rows
    return Ragged(splits, gather(children))


def _element_index(starts: Array, lengths: Array) -> Array:
    """Return the positions of every element of rows that start at `starts` and are so long."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)
