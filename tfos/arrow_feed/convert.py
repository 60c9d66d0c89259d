"""Turn Arrow batches into the NumPy columns that are spooled, with the null policy applied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from tfos.arrow_feed.blocks import Array, Column, ColumnRows, Ragged
from tfos.arrow_feed.schema import FeedColumn, FeedSchema, wire_name
from tfos.config import NullPolicy
from tfos.errors import NullValueError, SchemaMismatchError

__all__ = ["BatchConverter"]


class BatchConverter:
    """Convert the batches of one feed. Not thread-safe.

    Parameters
    ----------
    schema
        The columns to take out of each batch; other columns are ignored.
    nulls
        ``error`` refuses nulls, also those inside lists; ``zero`` turns them into 0, false, empty
        text or an empty list (a fixed list: all zeros); ``drop`` leaves out the row.
    """

    def __init__(self, schema: FeedSchema, nulls: NullPolicy) -> None:
        self._schema = schema
        self._nulls = nulls
        self._checked: pa.Schema | None = None
        self._paths: dict[str, tuple[str, ...]] = {name: (name,) for name in schema.names}
        # Lists whose length only the data tell must agree from the first batch on.
        self._sizes = {c.name: c.size for c in schema.columns if c.shape == "fixed"}

    def __call__(self, batch: pa.RecordBatch) -> ColumnRows | None:
        """Return the batch's rows, or None when none are left.

        Raises
        ------
        NullValueError
            If a column holds nulls and the policy is to refuse them.
        SchemaMismatchError
            If the batch's columns are not the schema's, or a fixed list's length changes.
        """
        if self._checked is None or not batch.schema.equals(self._checked):
            self._check(batch.schema)
        arrays = {name: _find(batch, path) for name, path in self._paths.items()}
        if self._nulls == "drop":
            arrays = _drop_nulls(arrays, self._columns_with_nulls(arrays))
        rows = len(next(iter(arrays.values()))) if arrays else 0
        if not rows:
            return None
        groups = [
            [self._numbers(name, arrays[name], dtype) for name in names]
            for dtype, names in self._schema.groups
        ]
        singles = [self._single(column, arrays[column.name]) for column in self._schema.singles]
        nbytes = sum(a.nbytes for group in groups for a in group)
        return ColumnRows(rows, groups, singles, nbytes + sum(map(_nbytes, singles)))

    def _check(self, schema: pa.Schema) -> None:
        """Compare a batch's schema with the feed's, and note where each column is found."""
        for column in self._schema.columns:
            wire = wire_name(column.name)
            path = (wire,) if wire in schema.names else _path(schema, column.name)
            if not path:
                raise SchemaMismatchError(f"Spark sent no column {column.name!r}")
            (other,) = FeedSchema.from_arrow(
                pa.schema([(column.name, _type(schema, path))])
            ).columns
            same_shape = other.shape == column.shape or (other.shape, column.shape) == (
                "ragged",
                "fixed",
            )
            if other.dtype != column.dtype or not same_shape:
                raise SchemaMismatchError(
                    f"column {column.name!r} came as {other.shape} {other.dtype}, "
                    f"its schema says {column.shape} {column.dtype}"
                )
            self._paths[column.name] = path
        self._checked = schema

    def _columns_with_nulls(self, arrays: dict[str, pa.Array]) -> list[str]:
        return [name for name, array in arrays.items() if _has_nulls(array)]

    def _refuse(self, name: str, rows: int, array: pa.Array) -> None:
        """Raise under policy ``error`` (``drop`` has removed the nulls by now)."""
        if self._nulls == "error":
            raise NullValueError(
                f"column {name!r} holds nulls in {rows} of the {len(array)} rows of a batch; in "
                f"pre_train {_remedy(name, array.type)}; feed.nulls, zero or drop, does so for "
                "every column",
                column=name,
                rows=rows,
            )

    def _numbers(self, name: str, array: pa.Array, dtype: str) -> Array:
        """Return the values of a flat array of numbers; nulls become 0 where they may."""
        nulls = array.null_count
        if nulls:
            self._refuse(name, nulls, array)
        kind = array.type
        if pt.is_boolean(kind):
            array = array.fill_null(False) if nulls else array
            return np.asarray(array.to_numpy(zero_copy_only=False))
        if pt.is_decimal(kind):
            array = array.cast(pa.float64())
        elif (pt.is_timestamp(kind) or pt.is_duration(kind)) and kind.unit != "us":
            array = array.cast(pa.timestamp("us") if pt.is_timestamp(kind) else pa.duration("us"))
        data = array.buffers()[1]
        if data is None:
            return np.zeros(len(array), dtype)
        values = np.frombuffer(data, dtype)[array.offset : array.offset + len(array)]
        if nulls:
            values = values.copy()
            values[array.is_null().to_numpy(zero_copy_only=False)] = 0
        return values

    def _text(self, name: str, array: pa.Array) -> Ragged:
        if array.null_count:
            self._refuse(name, array.null_count, array)
            array = array.fill_null(b"" if "binary" in str(array.type) else "")
        wide = pt.is_large_string(array.type) or pt.is_large_binary(array.type)
        _, offsets, data = array.buffers()
        if not len(array) or offsets is None:
            return Ragged(np.zeros(1, np.int64), np.empty(0, np.uint8))
        ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
        ends = ends[array.offset : array.offset + len(array) + 1]
        text = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
        return Ragged((ends - ends[0]).astype(np.int64), text[ends[0] : ends[-1]])

    def _single(self, column: FeedColumn, array: pa.Array) -> Column:
        if column.shape == "scalar":
            return self._text(column.name, array)
        if array.null_count:
            self._refuse(column.name, array.null_count, array)
        valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
        elements = array.flatten()
        if elements.null_count:
            self._refuse(column.name, int((~_no_null_inside(array)).sum()), array)
        flatten: Callable[[str, pa.Array], Column] = (
            self._text
            if column.dtype == "string"
            else lambda name, values: self._numbers(name, values, column.dtype)
        )
        child = flatten(column.name, elements)
        if column.shape == "fixed" and isinstance(child, np.ndarray):
            return self._fixed(column.name, array, child, valid)
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        splits = np.zeros(len(array) + 1, np.int64)
        np.cumsum(lengths, out=splits[1:])
        return Ragged(splits, child)

    def _fixed(self, name: str, array: pa.Array, elements: Array, valid: Array) -> Array:
        """Return lists of one length as [rows, length]; null rows are zeros."""
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)[valid]
        size = self._sizes[name]
        if size is None:
            if not len(lengths):
                raise NullValueError(
                    f"column {name!r} holds only nulls so far: the length of its lists is unknown; "
                    "fill or filter them in pre_train",
                    column=name,
                    rows=len(array),
                )
            size = self._sizes[name] = int(lengths[0])
        if (lengths != size).any():
            other = int(lengths[lengths != size][0])
            raise SchemaMismatchError(f"column {name!r} holds lists of {other} and of {size}")
        if valid.all():
            return elements.reshape(len(array), size)
        out = np.zeros((len(array), size), elements.dtype)
        out[valid] = elements.reshape(-1, size)
        return out


def _remedy(name: str, kind: pa.DataType) -> str:
    """Word how Spark fills the nulls of one column, or leaves out their rows."""
    if pt.is_nested(kind):
        return f"filter or replace them, in the lists of {name!r} as well"
    if "." in name:
        # Spark fills no fields of structs.
        present = f"{name} IS NOT NULL"
        return f"drop the rows with df.filter({present!r}), or fill a column of its own"
    drop = f"drop the rows with df.dropna(subset=[{name!r}])"
    for known, value in _FILLED_BY_SPARK:
        if known(kind):
            return f"fill them with df.fillna({{{name!r}: {value!r}}}), or {drop}"
    return drop


_FILLED_BY_SPARK: tuple[tuple[Callable[[pa.DataType], bool], object], ...] = (
    (pt.is_boolean, False),
    (pt.is_integer, 0),
    (pt.is_floating, 0.0),
    (pt.is_decimal, 0),
    (pt.is_string, ""),
    (pt.is_large_string, ""),
)
"""Which types DataFrame.fillna fills; of others it leaves the nulls without a word."""


def _path(schema: pa.Schema, name: str) -> tuple[str, ...]:
    """Return the field names that lead to a column, through structs."""
    for field in schema:
        if field.name == name:
            return (name,)
        if name.startswith(f"{field.name}.") and pt.is_struct(field.type):
            rest = _path(pa.schema(list(field.type)), name[len(field.name) + 1 :])
            if rest:
                return (field.name, *rest)
    return ()


def _type(schema: pa.Schema, path: tuple[str, ...]) -> pa.DataType:
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def _find(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    array = batch.column(path[0])
    return pc.struct_field(array, list(path[1:])) if len(path) > 1 else array


def _has_nulls(array: pa.Array) -> bool:
    if array.null_count:
        return True
    kind = array.type
    listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return listed and bool(array.flatten().null_count)


def _no_null_inside(array: pa.Array) -> Array:
    """Return, for each list, whether no element of it is null; bool [rows]."""
    parents = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
    nulls = array.flatten().is_null().to_numpy(zero_copy_only=False)
    sound = np.ones(len(array), bool)
    sound[parents[nulls]] = False
    return sound


def _drop_nulls(arrays: dict[str, pa.Array], names: list[str]) -> dict[str, pa.Array]:
    """Leave out the rows in which any of the named columns holds a null."""
    if not names:
        return arrays
    keep = np.ones(len(arrays[names[0]]), bool)
    for name in names:
        array = arrays[name]
        keep &= array.is_valid().to_numpy(zero_copy_only=False)
        if pt.is_nested(array.type) and not pt.is_struct(array.type):
            keep &= _no_null_inside(array)
    mask = pa.array(keep)
    return {name: array.filter(mask) for name, array in arrays.items()}


def _nbytes(column: Column) -> int:
    if isinstance(column, Ragged):
        return int(column.splits.nbytes) + _nbytes(column.child)
    return int(column.nbytes)
