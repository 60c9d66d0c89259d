"""Turn Spark ML vectors, as Arrow carries them, into the rows of a matrix."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfos.arrow_feed.blocks import Array
from tfos.errors import NullValueError, SchemaMismatchError

__all__ = ["dense_rows"]

_SPARSE = 0


def dense_rows(name: str, array: pa.StructArray, size: int | None) -> tuple[Array, int]:
    """Return dense and sparse vectors as float64 [rows, n], and n. Null vectors become zeros.

    Parameters
    ----------
    name
        The column, for messages.
    array
        Structs of (type, size, indices, values), as Spark's VectorUDT is sent.
    size
        The length that every vector must have; None takes the first one's.

    Raises
    ------
    SchemaMismatchError
        If the vectors are not all of one length.
    NullValueError
        If every vector is null and `size` is None, so that no length is known.
    """
    valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
    kinds, sizes, indices, values = (array.field(i) for i in range(4))
    stored = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    sparse = (kinds.fill_null(1).to_numpy(zero_copy_only=False) == _SPARSE) & valid
    said = sizes.fill_null(0).to_numpy(zero_copy_only=False)
    lengths = np.where(sparse, said, stored)[valid]
    if size is None:
        if not len(lengths):
            raise NullValueError(
                f"column {name!r} holds only null vectors so far: their length is unknown; "
                "filter or fill them in pre_train",
                column=name,
                rows=len(array),
            )
        size = int(lengths[0])
    if (lengths != size).any():
        other = int(lengths[lengths != size][0])
        raise SchemaMismatchError(f"column {name!r} holds vectors of {other} and of {size}")
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if not sparse.any() and valid.all():
        return flat.reshape(len(array), size), size
    return _scatter(array, indices, flat, stored, sparse, size), size


def _scatter(
    array: pa.StructArray, indices: pa.Array, flat: Array, stored: Array, sparse: Array, size: int
) -> Array:
    """Write stored values to their places; a dense vector's places are all, in order."""
    rows = np.repeat(np.arange(len(array)), stored)
    starts = np.repeat(np.cumsum(stored) - stored, stored)
    places = np.arange(len(flat)) - starts
    of_sparse = sparse[rows]
    places[of_sparse] = indices.flatten().to_numpy(zero_copy_only=False)
    out = np.zeros((len(array), size))
    out[rows, places] = flat
    return out
