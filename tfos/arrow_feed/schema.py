"""Say which tensor each column becomes: the feed's schema, and how Arrow types map to it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from tfos.errors import SchemaMismatchError, UnsupportedTypeError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FeedColumn", "FeedSchema", "Shape", "wire_name"]

Shape = Literal["scalar", "fixed", "ragged"]


@dataclass(frozen=True)
class FeedColumn:
    """One column of a feed.

    Parameters
    ----------
    name
        Column name; a field of a struct is named by its path, ``a.b.c``.
    dtype
        NumPy name of the elements' type, or ``string`` for bytes (TensorFlow's ``tf.string``).
    shape
        ``scalar``: [batch]; ``fixed``: [batch, size]; ``ragged``: a row of its own length each.
    size
        Elements a row of a ``fixed`` column; None when only the data tell.
    """

    name: str
    dtype: str
    shape: Shape = "scalar"
    size: int | None = None

    @property
    def stackable(self) -> bool:
        """Whether the column is a number or boolean a row, so that it can be stacked."""
        return self.shape == "scalar" and self.dtype != "string"


@dataclass(frozen=True)
class FeedSchema:
    """The columns of a feed, in order. Immutable, and equal when its columns are."""

    columns: tuple[FeedColumn, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if len(self._by_name) != len(self.columns):
            names = [column.name for column in self.columns]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SchemaMismatchError(f"columns appear twice: {', '.join(twice)}; rename one each")

    @cached_property
    def _by_name(self) -> Mapping[str, FeedColumn]:
        return {column.name: column for column in self.columns}

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> FeedColumn:
        """Return a column by name.

        Raises
        ------
        SchemaMismatchError
            If there is none; names the nearest ones.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise SchemaMismatchError(f"no column {name!r}: {_nearest(name, self.names)}") from None

    @cached_property
    def groups(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The stackable columns by dtype: ``((dtype, names), ...)``, each stored as one block."""
        groups: dict[str, list[str]] = {}
        for column in self.columns:
            if column.stackable:
                groups.setdefault(column.dtype, []).append(column.name)
        return tuple((dtype, tuple(names)) for dtype, names in groups.items())

    @cached_property
    def singles(self) -> tuple[FeedColumn, ...]:
        """The columns outside every group: text, fixed and ragged lists; stored one by one."""
        return tuple(column for column in self.columns if not column.stackable)

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> FeedSchema:
        """Map an Arrow schema; struct fields become columns named by their path.

        Raises
        ------
        UnsupportedTypeError
            If a column's type has no tensor counterpart; names the column and its type.
        SchemaMismatchError
            If two columns get the same name.
        """
        return cls(tuple(c for field in schema for c in _columns_of(field.name, field.type)))


def wire_name(name: str) -> str:
    """Return the name a column travels by: Spark's mapInArrow takes a dot for a struct's field."""
    return name.replace("%", "%25").replace(".", "%2E").replace("`", "%60")


def _columns_of(name: str, arrow_type: pa.DataType) -> Iterable[FeedColumn]:
    import pyarrow.types as pt

    if pt.is_struct(arrow_type):
        for field in arrow_type:
            yield from _columns_of(f"{name}.{field.name}", field.type)
    elif pt.is_fixed_size_list(arrow_type):
        dtype = _element_dtype(name, arrow_type, arrow_type.value_type)
        if dtype == "string":
            raise _unsupported(name, arrow_type)
        yield FeedColumn(name, dtype, "fixed", arrow_type.list_size)
    elif pt.is_list(arrow_type) or pt.is_large_list(arrow_type):
        yield FeedColumn(name, _element_dtype(name, arrow_type, arrow_type.value_type), "ragged")
    else:
        yield FeedColumn(name, _element_dtype(name, arrow_type, arrow_type))


def _element_dtype(name: str, whole: pa.DataType, element: pa.DataType) -> str:
    """Return the dtype of a scalar Arrow type; `whole` is the column's type, for the message."""
    import pyarrow.types as pt

    if pt.is_boolean(element):
        return "bool"
    if pt.is_integer(element) or pt.is_floating(element):
        return str(element.to_pandas_dtype().__name__)
    if pt.is_date32(element):
        return "int32"
    if pt.is_timestamp(element) or pt.is_duration(element):
        return "int64"
    if pt.is_decimal(element):
        return "float64"
    if any(
        check(element)
        for check in (pt.is_string, pt.is_large_string, pt.is_binary, pt.is_large_binary)
    ):
        return "string"
    raise _unsupported(name, whole)


def _unsupported(name: str, arrow_type: pa.DataType) -> UnsupportedTypeError:
    return UnsupportedTypeError(
        f"column {name!r} is {arrow_type}: no tensor holds that; select its parts as columns of "
        "their own, cast it, or drop it in pre_train",
        column=name,
        type_name=str(arrow_type),
    )


def _nearest(name: str, names: Iterable[str]) -> str:
    """Word the names nearest to a wrong one, for a message."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"there are {shown or 'none'}"
