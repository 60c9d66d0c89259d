"""Make the relative paths of a configuration absolute, once, where the user is. Pure."""

from __future__ import annotations

import os
import re
from typing import Any, TypeVar

from pydantic import BaseModel

from tfos.config import LOCATION, JobConfig
from tfos.errors import ConfigError

__all__ = ["resolve_paths"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_Section = TypeVar("_Section", bound=BaseModel)
_RELATIVE_FILE_URL = re.compile(r"file:(?://)?(?!/)(.+)")


def resolve_paths(config: JobConfig, directory: str) -> JobConfig:
    """Return `config` with its relative local paths made absolute from `directory`.

    Processes on other hosts and in other directories read them; URLs stay as they are. Every
    setting marked with `tfos.config.LOCATION` is one; resolving twice changes nothing.
    """
    return _resolved(config, directory)


def _resolved(section: _Section, directory: str) -> _Section:
    resolved: dict[str, Any] = {}
    for name, setting in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            resolved[name] = _resolved(value, directory)
        elif LOCATION in setting.metadata and value is not None:
            resolved[name] = _absolute(value, directory)
    return section.model_copy(update=resolved)


def _absolute(path: str, directory: str) -> str:
    relative = _RELATIVE_FILE_URL.fullmatch(path)
    path = relative[1] if relative else path
    if _URL.match(path):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ConfigError(f"{path}: {expanded.partition('/')[0]} names no home directory here")
    return os.path.normpath(os.path.join(directory, expanded))
