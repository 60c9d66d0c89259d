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
    """Rows `start` to `stop` of a block."""

    block: Block
    start: int
    stop: int

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
    count = len(range(*wanted.indices(len(source)))) if isinstance(wanted, slice) else len(wanted)
    rows = sum(piece.rows for piece in pieces)
    out = aligned_empty((rows, count) if by_row else (count, rows), source.dtype)
    by_column = out.T if by_row else out
    done = 0
    for block, start, stop in pieces:
        target = by_column[:, done : done + stop - start]
        done += stop - start
        data = block.groups[group]
        if isinstance(wanted, slice):
            target[...] = data[wanted, start:stop]
        else:
            for position, column in enumerate(wanted):
                target[position] = data[column, start:stop]
    return out


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
        if isinstance(column, np.ndarray):
            out[done : done + piece.rows] = column[piece.start : piece.stop]
            done += piece.rows
    return out


def _gather_ragged(pieces: Sequence[tuple[Ragged, Piece]]) -> Ragged:
    splits = aligned_empty((sum(piece.rows for _, piece in pieces) + 1,), np.int64)
    splits[0] = 0
    children: list[tuple[Column, Piece]] = []
    row = total = 0
    for column, piece in pieces:
        bounds = column.splits[piece.start : piece.stop + 1]
        start, stop = int(bounds[0]), int(bounds[-1])
        np.add(bounds[1:], total - start, out=splits[row + 1 : row + 1 + piece.rows])
        children.append((column.child, Piece(piece.block, start, stop)))
        row += piece.rows
        total += stop - start
    return Ragged(splits, gather(children))
