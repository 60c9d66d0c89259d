"""Name and undo the tagging by which several datasets travel to one role as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TAG_COLUMN", "split_by_tag", "tag_order"]

TAG_COLUMN = "__tfos_dataset__"
"""The int8 column that says, by place in `tag_order`, which dataset a row belongs to."""


def tag_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return dataset names in the order of their tags: sorted, ``train`` last."""
    return tuple(sorted(names, key=lambda name: (name == "train", name)))


def split_by_tag(
    batch: pa.RecordBatch, names: Sequence[str]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Split a tagged batch where its tag changes, without copying.

    Parameters
    ----------
    batch
        Rows with the column `TAG_COLUMN`, without nulls there.
    names
        The dataset of each tag, as `tag_order` gives them.

    Yields
    ------
    tuple
        Dataset name and its rows, in order; `TAG_COLUMN` and other datasets' columns are still
        there, for the spool to ignore.
    """
    if not batch.num_rows:
        return
    tags = batch.column(batch.schema.get_field_index(TAG_COLUMN)).to_numpy(zero_copy_only=True)
    changes = [0, *(np.flatnonzero(np.diff(tags)) + 1).tolist(), len(tags)]
    for start, stop in pairwise(changes):
        yield names[int(tags[start])], batch.slice(start, stop - start)
