"""Prepare DataFrames on the driver, so that each reaches its role as plain Arrow columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfos.arrow_feed.schema import FeedColumn, FeedSchema, wire_name
from tfos.arrow_feed.tags import TAG_COLUMN, tag_order
from tfos.errors import EmptyDataError, SchemaMismatchError, UnsupportedTypeError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType, StructField, StructType

__all__ = [
    "LENGTH_METADATA",
    "check_not_empty",
    "is_repeatable",
    "known_partitions",
    "partition_for",
    "prepare_frame",
    "tag_frames",
]

LENGTH_METADATA = "tfos.length"
"""Column metadata that says an array always has so many elements: it becomes [batch, length]."""

# A broadcast moves no row of the partition.
_SHUFFLE = re.compile(r"(?<!Broadcast)(?<!Reused)Exchange")

_DTYPES = {
    "boolean": "bool",
    "tinyint": "int8",
    "smallint": "int16",
    "int": "int32",
    "bigint": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "binary": "string",
    "date": "int32",
    "timestamp": "int64",
    "timestamp_ntz": "int64",
}


# In place of a type to cast to: an ML vector, to be made an array.
_VECTOR = "vector"


@dataclass(frozen=True)
class _Leaf:
    """A column to select: where it lies, what it is cast to if anything, what it becomes."""

    path: tuple[str, ...]
    cast: str | None
    column: FeedColumn


def prepare_frame(df: DataFrame) -> tuple[DataFrame, FeedSchema]:
    """Flatten and cast a DataFrame so that Spark hands Arrow nothing but plain columns.

    Struct fields become columns named by their path (Spark sees `wire_name` of it); decimals become
    doubles; ML vectors arrays; dates are days and timestamps microseconds since 1970-01-01 UTC.
    Runs on the driver; starts no job.

    Raises
    ------
    UnsupportedTypeError
        If a column's type has no tensor counterpart; names column and type.
    SchemaMismatchError
        If two columns have the same name but for case, or there is no column.
    """
    _check_names(df.columns)
    leaves = [leaf for field in df.schema.fields for leaf in _leaves(field)]
    _check_names(leaf.column.name for leaf in leaves)
    schema = FeedSchema(tuple(leaf.column for leaf in leaves))
    if all(leaf.cast is None and leaf.path == (wire_name(leaf.column.name),) for leaf in leaves):
        return df, schema
    return df.select(*map(_selected, leaves)), schema


def tag_frames(frames: Mapping[str, DataFrame]) -> tuple[DataFrame, dict[str, FeedSchema]]:
    """Join several DataFrames into one for a role that takes them all, its rows tagged.

    Each is prepared by `prepare_frame`. The int8 column `TAG_COLUMN` holds a row's place in
    `tag_order`. All but ``train`` are coalesced to one partition each and come first, so that they
    are complete when training begins. `split_by_tag` undoes it. Starts no job.

    Raises
    ------
    SchemaMismatchError
        If columns of one name have different types, or `frames` is empty.
    UnsupportedTypeError
        As `prepare_frame`.
    """
    from pyspark.sql import functions as F

    if not frames:
        raise SchemaMismatchError("there is no DataFrame to feed")
    names = tag_order(frames)
    prepared = {name: prepare_frame(frames[name]) for name in names}
    _check_types({name: df for name, (df, _) in prepared.items()})
    whole: DataFrame | None = None
    for tag, name in enumerate(names):
        df = prepared[name][0]
        if name != "train":
            df = df.coalesce(1)
        df = df.withColumn(TAG_COLUMN, F.lit(tag).cast("tinyint"))
        whole = df if whole is None else whole.unionByName(df, allowMissingColumns=True)
    assert whole is not None
    return whole, {name: schema for name, (_, schema) in prepared.items()}


def partition_for(df: DataFrame, count: int) -> DataFrame:
    """Give a DataFrame exactly `count` partitions, one a role. Runs on the driver; no job.

    Merges partitions where there are known to be enough: no shuffle, though they may be uneven.
    With fewer, and where only running the query would tell (adaptive execution merges the
    partitions of joins and aggregates as it sees fit), rows are shuffled so that every role gets
    some; Spark drops a ``repartition`` directly below.

    Parameters
    ----------
    df
        The DataFrame.
    count
        Partitions wanted, 1 or more.

    Raises
    ------
    EmptyDataError
        As `check_not_empty`.
    """
    if count < 1:
        raise ValueError(f"count is {count}: it must be 1 or more")
    check_not_empty(df)
    if count == 1:
        return df.coalesce(1)
    partitions = known_partitions(df)
    if partitions is not None and partitions >= count:
        return df.coalesce(count)
    return df.repartition(count)


def check_not_empty(df: DataFrame) -> None:
    """Refuse a DataFrame that Spark knows, without running it, to have no rows.

    Runs on the driver; plans the query, runs no job.

    Raises
    ------
    EmptyDataError
        If so: Spark would start no task at all for it, and so no role.
    """
    most = df._jdf.queryExecution().optimizedPlan().maxRows()
    if most.isDefined() and most.get() == 0:
        raise EmptyDataError("the DataFrame has no rows: look at the filters of pre_train")


def known_partitions(df: DataFrame) -> int | None:
    """Return how many partitions a DataFrame has; None where only running the query would tell.

    Runs on the driver; plans the query, runs no job.
    """
    execution = df._jdf.queryExecution()
    if execution.executedPlan().nodeName() == "AdaptiveSparkPlan":
        return None
    return int(execution.toRdd().getNumPartitions())


def is_repeatable(df: DataFrame) -> bool:
    """Say whether Spark, asked again, gives each partition the same rows in the same order.

    A shuffle does not: its blocks are read in the order in which they arrive. Runs on the driver;
    plans the query, runs no job.
    """
    plan = df._jdf.queryExecution().executedPlan().toString()
    return _SHUFFLE.search(plan) is None


def _selected(leaf: _Leaf) -> Column:
    """Return the expression that selects a leaf."""
    from pyspark.sql import functions as F

    column = F.col(".".join(f"`{part.replace('`', '``')}`" for part in leaf.path))
    if leaf.cast == _VECTOR:
        from pyspark.ml.functions import vector_to_array

        # Five times faster than sending Arrow the vector's own struct; it cannot take nulls itself.
        column = F.when(column.isNotNull(), vector_to_array(column))
    elif leaf.cast is not None:
        column = column.cast(leaf.cast)
    return column.alias(wire_name(leaf.column.name))


def _leaves(field: StructField) -> Iterator[_Leaf]:
    return _leaves_of((field.name,), field.dataType, field.metadata or {})


def _leaves_of(
    path: tuple[str, ...], kind: DataType, metadata: Mapping[str, Any]
) -> Iterator[_Leaf]:
    from pyspark.sql.types import ArrayType, StructType

    name = ".".join(path)
    if isinstance(kind, StructType):
        _check_names(f"{name}.{field.name}" for field in kind.fields)
        for field in kind.fields:
            yield from _leaves_of((*path, field.name), field.dataType, field.metadata or {})
    elif type(kind).__name__ == "VectorUDT":
        size = metadata.get("ml_attr", {}).get("num_attrs")
        yield _Leaf(path, _VECTOR, FeedColumn(name, "float64", "fixed", size))
    elif isinstance(kind, ArrayType):
        dtype, cast = _element(name, kind, kind.elementType)
        cast = None if cast is None else f"array<{cast}>"
        length = metadata.get(LENGTH_METADATA)
        if length is None:
            yield _Leaf(path, cast, FeedColumn(name, dtype, "ragged"))
        elif isinstance(length, int) and length > 0 and dtype != "string":
            yield _Leaf(path, cast, FeedColumn(name, dtype, "fixed", length))
        else:
            raise SchemaMismatchError(
                f"column {name!r} is {kind.simpleString()} with metadata {LENGTH_METADATA} = "
                f"{length!r}: it must be a positive integer, on an array of numbers or booleans"
            )
    else:
        dtype, cast = _element(name, kind, kind)
        yield _Leaf(path, cast, FeedColumn(name, dtype))


def _element(name: str, whole: DataType, kind: DataType) -> tuple[str, str | None]:
    """Return the dtype a scalar Spark type becomes, and the type to cast it to first, if any."""
    from pyspark.sql.types import CharType, DayTimeIntervalType, DecimalType, VarcharType

    if isinstance(kind, DecimalType):
        return "float64", "double"
    if isinstance(kind, DayTimeIntervalType):
        return "int64", None
    if isinstance(kind, CharType | VarcharType):
        return "string", None
    dtype = _DTYPES.get(kind.simpleString())
    if dtype is None or type(kind).__name__.endswith("UDT"):
        raise UnsupportedTypeError(
            f"column {name!r} is {whole.simpleString()}: no tensor holds that; in pre_train select "
            "its parts as columns of their own, cast it, explode it, or drop it",
            column=name,
            type_name=whole.simpleString(),
        )
    return dtype, None


def _check_names(names: Iterable[str]) -> None:
    """Refuse no names, names alike but for case (Spark cannot tell them apart), and our own."""
    seen: dict[str, str] = {}
    for name in names:
        if name == TAG_COLUMN:
            raise SchemaMismatchError(f"column name {name!r} is taken by tfos; rename the column")
        if name.lower() in seen:
            raise SchemaMismatchError(
                f"columns {seen[name.lower()]!r} and {name!r} have the same name (case does not "
                "count); rename one in pre_train"
            )
        seen[name.lower()] = name
    if not seen:
        raise SchemaMismatchError("the DataFrame has no columns; select some in pre_train")


def _check_types(frames: Mapping[str, DataFrame]) -> None:
    """Refuse one name with two types: a union would widen one of them unasked."""
    seen: dict[str, tuple[str, str, DataType]] = {}
    for frame, df in frames.items():
        schema: StructType = df.schema
        for field in schema.fields:
            key = field.name.lower()
            first, column, kind = seen.setdefault(key, (frame, field.name, field.dataType))
            if kind.simpleString() != field.dataType.simpleString() or column != field.name:
                raise SchemaMismatchError(
                    f"column {column!r} is {kind.simpleString()} in {first!r} but "
                    f"{field.name!r} is {field.dataType.simpleString()} in {frame!r}; "
                    "cast or rename one of them in pre_train"
                )
