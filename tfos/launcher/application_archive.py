"""Pack an application for a driver on another host: its file, and what it imports beside it."""

from __future__ import annotations

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
    directories, hidden ones and links out of the directory do not.

    Raises
    ------
    ConfigError
        If it is more than 64 MiB.
    """
    total = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in _files(app.parent):
            total += path.stat().st_size
            if total > LIMIT_BYTES:
                raise ConfigError(
                    f"{app.parent} holds more than {LIMIT_BYTES >> 20} MiB of Python files and "
                    "packages, all of which --deploy-mode cluster ships with the application: put "
                    "the application in a directory of its own"
                )
            archive.write(path, path.relative_to(app.parent))


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix == ".py":
            yield path
        elif path.is_dir() and not path.is_symlink() and (path / "__init__.py").is_file():
            inside = (each for each in sorted(path.rglob("*")) if "__pycache__" not in each.parts)
            yield from (each for each in inside if each.is_file())
