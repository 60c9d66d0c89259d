"""Turn what the user's code returned into a JSON value, whatever it is. Pure.

A finished training is not failed for what it returned: a value that JSON lacks is kept as its repr,
one that is too large is left out, and both are said.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any
from uuid import UUID

from tfos.fault.failures.error_text import repr_of

__all__ = ["MOST_BYTES", "JsonValue", "as_json"]

MOST_BYTES = 100_000
"""How long a result may be as JSON text: it travels through the registry."""

_MOST_DEPTH = 30
_MOST_BITS = 10_000
_MOST_ITEMS = MOST_BYTES // 2
"""As JSON text, no array of more is short enough."""


@dataclass(frozen=True)
class JsonValue:
    """A value made of None, bool, int, float, str, lists, and mappings with text for keys.

    Parameters
    ----------
    value
        The value; its JSON text has about `MOST_BYTES` at most. Floats may be NaN or infinite:
        `RunResult` writes null for them.
    changed
        What is not as it was returned, one line each.
    """

    value: Any
    changed: tuple[str, ...] = ()


def as_json(value: Any) -> JsonValue:
    """Convert a value; never fails.

    Scalars, arrays and tensors of NumPy and TensorFlow become numbers and lists, dataclasses and
    named tuples become mappings, sets lists, paths and UUIDs text, times ISO 8601 text, durations
    seconds, and members of an Enum their values.
    """
    conversion = _Conversion()
    try:
        plain = conversion.of(value, "result", 0)
    except _TooManyItemsError:
        plain = conversion.left_out("result", f"more than {_MOST_ITEMS:,} items")
    while (size := _size(plain)) > MOST_BYTES:
        parts = {key: _size(part) for key, part in plain.items()} if isinstance(plain, dict) else {}
        largest = max(parts, key=lambda key: parts[key], default=None)
        if largest is None or parts[largest] < 1_000:
            plain = conversion.left_out("result", f"{size:,} bytes of JSON")
        else:
            reason = f"{parts[largest]:,} bytes of JSON"
            plain[largest] = conversion.left_out(f"result[{largest!r}]", reason)
    return JsonValue(plain, tuple(conversion.changed))


def _size(value: Any) -> int:
    return len(json.dumps(value))


class _TooManyItemsError(Exception):
    pass


@dataclass
class _Conversion:
    changed: list[str] = field(default_factory=list)
    items: int = 0

    def of(self, value: Any, path: str, depth: int) -> Any:
        self.items += 1
        if self.items > _MOST_ITEMS:
            raise _TooManyItemsError
        try:
            if depth <= _MOST_DEPTH:  # deeper ones most often hold themselves
                return self._of_kind(value, path, depth)
        except _TooManyItemsError:
            raise
        except Exception as error:  # whatever the methods of the user's classes do
            self.changed.append(f"{path}: {type(error).__name__} while it was read")
        return self._repr(value, path)

    def _of_kind(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, type):
            return self._repr(value, path)
        if (plain := _scalar(value)) is not None or value is None:
            return plain
        if (parts := _entries(value)) is not None:
            return {_key(k): self.of(v, f"{path}[{k!r}]", depth + 1) for k, v in parts}
        if isinstance(value, Set | Sequence) and not isinstance(value, bytes | bytearray):
            return self._of_all(_ordered(value), path, depth)
        for method in ("tolist", "to_list", "numpy"):  # of arrays, of ragged tensors, of tensors
            if callable(read := getattr(value, method, None)):
                return self._of_array(value, read, path, depth)
        return self._repr(value, path)

    def _of_all(self, values: Sequence[Any], path: str, depth: int) -> Any:
        if len(values) > _MOST_ITEMS:
            return self.left_out(path, f"{len(values):,} items")
        return [self.of(each, f"{path}[{i}]", depth + 1) for i, each in enumerate(values)]

    def _of_array(self, value: Any, read: Any, path: str, depth: int) -> Any:
        size = getattr(value, "size", 0)
        if isinstance(size, int) and size > _MOST_ITEMS:
            return self.left_out(path, f"{size:,} items")
        if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
            return value.astype(str).tolist()
        return self.of(read(), path, depth + 1)

    def _repr(self, value: Any, path: str) -> str:
        self.changed.append(f"{path} is of type {type(value).__name__}: its repr is kept")
        return repr_of(value)

    def left_out(self, path: str, why: str) -> str:
        self.changed.append(f"{path} is left out: {why}")
        return f"<left out: {why}>"


def _scalar(value: Any) -> str | int | float | None:
    """Return the JSON value of what is one by itself; None for anything else."""
    if isinstance(value, Enum):
        return _scalar(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        number = int(value)
        return number if number.bit_length() <= _MOST_BITS else None
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, UUID) else None


def _entries(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return names and values of what has such; None for anything else."""
    if isinstance(value, Mapping):
        return value.items()
    if is_dataclass(value):
        return [(each.name, getattr(value, each.name)) for each in fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=True)
    return None


def _key(key: Any) -> str:
    plain = _scalar(key)
    return repr_of(key) if plain is None else str(plain)


def _ordered(values: Any) -> list[Any]:
    if isinstance(values, Set):
        try:
            return sorted(values)
        except TypeError:
            pass
    return list(values)
