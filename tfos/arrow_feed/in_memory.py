"""Data of one Python process as Arrow tables: from pandas, pyarrow, rows, or Spark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfos.arrow_feed.frame import is_repeatable, prepare_frame
from tfos.arrow_feed.schema import FeedSchema
from tfos.errors import ConfigError, UnsupportedTypeError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MemoryTable", "memory_table"]


@dataclass(frozen=True)
class MemoryTable:
    """A dataset that is held in memory.

    Parameters
    ----------
    table
        Its rows, as a spool takes them.
    schema
        Which tensor each column becomes.
    repeatable
        Whether the same rows come in the same order when the data is made again.
    """

    table: pa.Table
    schema: FeedSchema
    repeatable: bool = True


def memory_table(name: str, data: Any) -> MemoryTable:
    """Return the rows of `data` as a table. Blocks while Spark computes a Spark DataFrame.

    Parameters
    ----------
    name
        Name of the dataset, for messages.
    data
        A pandas DataFrame, whose index is left out; a pyarrow Table; a list of mappings of column
        names to values; or a Spark DataFrame, which is collected.

    Raises
    ------
    ConfigError
        If `data` is none of these, or its values do not form columns.
    UnsupportedTypeError, SchemaMismatchError
        If a column has no tensor counterpart, or two have the same name.
    """
    import pyarrow as pa

    if _is_a(data, "pyspark.sql", "DataFrame"):
        frame, schema = prepare_frame(data)
        return MemoryTable(frame.toArrow(), schema, is_repeatable(frame))
    try:
        if isinstance(data, pa.Table):
            table = data
        elif _is_a(data, "pandas", "DataFrame"):
            table = pa.Table.from_pandas(data, preserve_index=False)
        elif _is_rows(data):
            table = pa.Table.from_pylist(list(data))
        else:
            raise ConfigError(
                f"dataset {name!r} is a {type(data).__name__}: expected a pandas DataFrame, a "
                "pyarrow Table, a Spark DataFrame, or a list of mappings"
            )
    except pa.ArrowNotImplementedError as error:
        raise UnsupportedTypeError(f"dataset {name!r}: {error}") from error
    except pa.ArrowException as error:
        raise ConfigError(f"dataset {name!r} cannot be read as columns: {error}") from error
    return MemoryTable(table, FeedSchema.from_arrow(table.schema))


def _is_rows(data: Any) -> bool:
    sequence = isinstance(data, Sequence) and not isinstance(data, str | bytes)
    return sequence and all(isinstance(row, Mapping) for row in data)


def _is_a(data: Any, package: str, kind: str) -> bool:
    """Say whether `data` is of a class of a package, which is not imported for the question."""
    module = sys.modules.get(package)
    return module is not None and isinstance(data, getattr(module, kind))
