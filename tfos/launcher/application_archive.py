"""Pack an application for a driver on another host: its file, and what it imports beside it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tfos.errors import ConfigError

__all__ = ["LIMIT_BYTES", "pack_application"]

LIMIT_BYTES = 64 << 20
"""Code is small: more than this is something else."""


def pack_application(app: Path, target: Path) -> None:
    """Write a zip file of the Python files beside `app` and of the packages there.

    A package is a directory with an ``__init__.py``. Data files of packages go along; other
    directories, hidden files and directories, and links to directories do not.

    Raises
    ------
    ConfigError
        If it is more than 64 MiB, or a file cannot be read.
    """
    total = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        try:
            for path in _files(app.parent):
                total += path.stat().st_size
                if total > LIMIT_BYTES:
                    size = f"{LIMIT_BYTES >> 20} MiB"
                    raise _unfit(app, f"more than {size} of Python files and packages")
                archive.write(path, path.relative_to(app.parent))
        except PermissionError as error:
            raise _unfit(app, f"{error.filename}, which you may not read") from error


def _unfit(app: Path, holds: str) -> ConfigError:
    return ConfigError(
        f"{app.parent} holds {holds}, and --deploy-mode cluster ships all Python files and "
        "packages beside the application: put the application in a directory of its own"
    )


def _files(directory: Path) -> Iterator[Path]:
    for entry in _entries(directory):
        if entry.is_file() and entry.name.endswith(".py"):
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False) and _is_package(entry):
            yield from _files_below(entry)


def _files_below(directory: os.DirEntry[str]) -> Iterator[Path]:
    for entry in _entries(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry)
        elif entry.is_file():
            yield Path(entry.path)


def _entries(directory: os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        kept = [e for e in found if not e.name.startswith(".") and e.name != "__pycache__"]
    return sorted(kept, key=lambda entry: entry.name)


def _is_package(directory: os.DirEntry[str]) -> bool:
    # One that may not be looked into, such as another user's in /tmp, is none.
    return os.path.isfile(os.path.join(directory, "__init__.py"))
