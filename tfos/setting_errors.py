"""Descriptions, on one line, of settings that do not validate. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

__all__ = [
    "describe_invalid",
    "describe_unknown",
    "leaves",
    "nearest_setting",
    "one_line",
    "section_of",
    "settings_of",
    "shown",
    "unknown_settings",
]

_LONGEST_VALUE = 80
_NAME_RULE = "use letters, digits, '.', '_' and '-', 128 at most, the first a letter or a digit"


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting, in the model's order."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from settings_of(section, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds; None for a single setting."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a nested mapping's values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def unknown_settings(
    model: type[BaseModel], layer: Mapping[Any, Any], prefix: str = ""
) -> Iterator[str]:
    """Yield the dotted names in nested settings that a model does not know."""
    for key, value in layer.items():
        path = f"{prefix}{key}"
        field = model.model_fields.get(str(key))
        if field is None:
            # The innermost name says most of what was meant.
            yield next(leaves({path: value}), path)
        elif (section := section_of(field.annotation)) and isinstance(value, Mapping):
            yield from unknown_settings(section, value, f"{path}.")


def describe_unknown(model: type[BaseModel], path: str) -> str:
    """Return one line about a name that is none of a model's settings."""
    nearest = nearest_setting(model, path)
    hint = f"did you mean {nearest}?" if nearest else "docs/configuration.md lists the settings"
    return f"{path} is not a setting; {hint}"


def nearest_setting(model: type[BaseModel], path: str) -> str | None:
    """Return the setting that a wrong name most likely means."""
    by_last_name: dict[str, list[str]] = {}
    for known in settings_of(model):
        by_last_name.setdefault(known.rpartition(".")[2], []).append(known)
    last = path.rpartition(".")[2]
    if len(by_last_name.get(last, ())) == 1:
        return by_last_name[last][0]
    for close in difflib.get_close_matches(path, list(settings_of(model)), n=1):
        return close
    for close in difflib.get_close_matches(last, by_last_name, n=1):
        return by_last_name[close][0]
    return None


def describe_invalid(error: ValidationError, origins: Mapping[str, str], default: str) -> str:
    """Return one line about the first of the values that do not validate.

    Parameters
    ----------
    error
        What pydantic found.
    origins
        Dotted name of a setting, or of what it is in, to where it was set.
    default
        Where the others were set.
    """
    first, *others = error.errors(include_url=False)
    more = f" (and {len(others)} more wrong)" if others else ""
    path = ".".join(str(part) for part in first["loc"])
    message = _rule(first)
    if not path:
        return message + more
    source = next((origins[p] for p in _prefixes(path) if p in origins), default)
    return f"{source}: {path} is {shown(first['input'])}: {message}{more}"


def _prefixes(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _rule(details: ErrorDetails) -> str:
    if details["type"] == "string_pattern_mismatch":
        return _NAME_RULE
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return one_line(message)


def one_line(text: str) -> str:
    """Return text with every run of white space made one space."""
    return " ".join(text.split())


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
