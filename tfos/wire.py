"""The codec of every document and message: dataclasses to JSON values, and strictly back. Pure.

What a value looks like as JSON follows from its type alone:

=================================  ==================================================
type                               JSON
=================================  ==================================================
dataclass                          object with exactly its fields
one of several dataclasses         the same, and the class's name as ``type``
named tuple                        array
class with ``parse(text)``         its ``str``: `TaskKey`, `Life`, `Endpoint`
Enum, Literal                      its value
pydantic model                     what ``model_dump(mode="json")`` returns
tuple, Sequence                    array
Mapping                            object; keys are text, whole numbers or one of the above
None, bool, int, float, str        themselves
Any                                whatever JSON value it is
=================================  ==================================================
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

__all__ = ["from_json", "from_text", "to_json", "to_text"]

T = TypeVar("T")
_TAG: Final = "type"
_PLAIN: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def to_json(value: Any, kind: Any = None) -> Any:
    """Return a value as JSON values.

    Parameters
    ----------
    value
        A dataclass, or anything else of the table above.
    kind
        Its declared type, where that says more than its class: a union, ``dict[str, TaskKey]``.

    Examples
    --------
    >>> from tfos.topology import Endpoint, Role, TaskKey
    >>> to_json({TaskKey(Role.PS, 0): Endpoint("a", 80)}, Mapping[TaskKey, Endpoint])
    {'ps-0': 'a:80'}
    """
    return _form_of(type(value) if kind is None else kind).write(value)


def from_json(kind: type[T], data: Any) -> T:
    """Read back what `to_json` returned for a value of this type.

    Raises
    ------
    ValueError
        If `data` is anything else; names the place: ``failure.last_lines[3]: expected text, found
        5``. Fields that are missing or unknown are an error, and so are numbers written as text.

    Examples
    --------
    >>> from tfos.topology import ClusterSpec
    >>> from_json(ClusterSpec, {"endpoints": {"ps-0": "a:80"}}).by_role
    {'ps': ['a:80']}
    """
    return cast(T, _form_of(kind).read(data))


def to_text(value: Any) -> str:
    """Return a value as compact JSON text; raises TypeError or ValueError if it has none."""
    return json.dumps(to_json(value), separators=(",", ":"))


def from_text(kind: type[T], text: str | bytes) -> T:
    """Read back what `to_text` returned for a value of this type.

    Raises
    ------
    ValueError
        If `text` is not JSON, or as of `from_json`.
    """
    return from_json(kind, json.loads(text))


class _Form(NamedTuple):
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


class _BadValueError(ValueError):
    """Grows its path on the way up to the document's root."""

    def __init__(self, problem: str, path: str = "") -> None:
        self.problem, self.path = problem, path
        super().__init__(f"{path.lstrip('.')}: {problem}" if path else problem)


def _bad(expected: str, data: Any) -> _BadValueError:
    found = repr(data)
    return _BadValueError(f"expected {expected}, found {found[:60]}{'...' * (len(found) > 60)}")


def _within(place: str, error: Exception) -> _BadValueError:
    """Return the error of a part as that of what it is in."""
    if isinstance(error, _BadValueError):
        return _BadValueError(error.problem, place + error.path)
    return _BadValueError(str(error), place)  # of a class that checks its own fields


_forms: dict[Any, _Form] = {}


def _form_of(kind: Any) -> _Form:
    form = _forms.get(kind)
    if form is None:
        form = _forms[kind] = _new_form(kind)
    return form


def _new_form(kind: Any) -> _Form:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _Form(_same, _same)
    if kind is dict:
        return _mapping(_Form(_same, _same), _Form(_same, _same))
    if kind in _PLAIN:
        return _plain(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _choice(arguments, _same)
    if origin in (dict, Mapping):
        return _mapping(_form_of_key(arguments[0]), _form_of(arguments[1]))
    if origin is Sequence or (origin is tuple and arguments[1:] == (...,)):
        return _array(_form_of(arguments[0]))
    if hasattr(kind, "parse"):
        return _parsed(kind)
    if dataclasses.is_dataclass(kind):
        return _object(kind)
    if hasattr(kind, "model_validate"):
        return _Form(lambda value: value.model_dump(mode="json"), kind.model_validate)
    if hasattr(kind, "_fields"):
        return _named_tuple(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _choice([each.value for each in kind], lambda value: value.value, kind)
    raise TypeError(f"{kind} has no form in JSON")


def _form_of_key(kind: Any) -> _Form:
    return _Form(str, int) if kind is int else _form_of(kind)


def _same(value: Any) -> Any:
    return value


def _plain(kind: type) -> _Form:
    taken = (int, float) if kind is float else kind

    def read(data: Any) -> Any:
        # A truth value is a number to Python only.
        if not isinstance(data, taken) or (isinstance(data, bool) and kind is not bool):
            raise _bad(_PLAIN[kind], data)
        return data

    return _Form(_same, read)


def _choice(
    values: Sequence[Any], write: Callable[[Any], Any], make: Callable[[Any], Any] = _same
) -> _Form:
    def read(data: Any) -> Any:
        if data not in values:
            raise _bad(f"one of {', '.join(map(repr, values))}", data)
        return make(data)

    return _Form(write, read)


def _parsed(kind: Any) -> _Form:
    def read(data: Any) -> Any:
        if not isinstance(data, str):
            raise _bad("text", data)
        return kind.parse(data)

    return _Form(str, read)


def _union(kinds: Sequence[Any]) -> _Form:
    several = [kind for kind in kinds if kind is not type(None)]
    form = _form_of(several[0]) if len(several) == 1 else _tagged(several)
    if len(several) == len(kinds):
        return form
    return _Form(
        lambda value: None if value is None else form.write(value),
        lambda data: None if data is None else form.read(data),
    )


def _tagged(kinds: Sequence[Any]) -> _Form:
    forms = {kind.__name__: _object(kind) for kind in kinds}

    def write(value: Any) -> dict[str, Any]:
        name = type(value).__name__
        return {_TAG: name, **forms[name].write(value)}

    def read(data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get(_TAG) not in forms:
            raise _bad(f"an object whose {_TAG} is one of {', '.join(forms)}", data)
        return forms[data[_TAG]].read({name: data[name] for name in data if name != _TAG})

    return _Form(write, read)


def _mapping(key: _Form, item: _Form) -> _Form:
    def read(data: Any) -> dict[Any, Any]:
        if not isinstance(data, Mapping):
            raise _bad("an object", data)
        keys = _read_parts("[{!r}]", ((name, key.read, name) for name in data))
        items = _read_parts("[{!r}]", ((name, item.read, data[name]) for name in data))
        return dict(zip(keys, items, strict=True))

    return _Form(lambda value: {key.write(k): item.write(v) for k, v in value.items()}, read)


def _array(item: _Form) -> _Form:
    def read(data: Any) -> tuple[Any, ...]:
        if not isinstance(data, list | tuple):
            raise _bad("an array", data)
        return tuple(_read_parts("[{}]", ((i, item.read, each) for i, each in enumerate(data))))

    return _Form(lambda value: [item.write(each) for each in value], read)


def _read_parts(
    place: str, parts: Iterable[tuple[Any, Callable[[Any], Any], Any]]
) -> Iterator[Any]:
    """Read the parts of a value, each given by its name, its reader and its data.

    `place` formats a part's name as its place in the value, where there is an error to tell.
    """
    for name, read, data in parts:
        try:
            yield read(data)
        except (TypeError, ValueError) as error:
            raise _within(place.format(name), error) from error


def _named_tuple(kind: Any) -> _Form:
    forms = [_form_of(each) for each in get_type_hints(kind).values()]

    def read(data: Any) -> Any:
        if not isinstance(data, list | tuple) or len(data) != len(forms):
            raise _bad(f"an array of {len(forms)}", data)
        parts = zip(forms, data, strict=True)
        return kind(*_read_parts("[{}]", ((i, f.read, each) for i, (f, each) in enumerate(parts))))

    return _Form(
        lambda value: [form.write(each) for form, each in zip(forms, value, strict=True)], read
    )


def _object(kind: Any) -> _Form:
    declared = get_type_hints(kind)
    forms = {each.name: _form_of(declared[each.name]) for each in dataclasses.fields(kind)}

    def read(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise _bad(f"an object ({kind.__name__})", data)
        if wrong := sorted(forms.keys() ^ data.keys()):
            raise _BadValueError(f"missing or unknown in {kind.__name__}: {', '.join(wrong)}")
        values = _read_parts(".{}", ((name, f.read, data[name]) for name, f in forms.items()))
        return kind(**dict(zip(forms, values, strict=True)))

    return _Form(
        lambda value: {name: form.write(getattr(value, name)) for name, form in forms.items()},
        read,
    )
