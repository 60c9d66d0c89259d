"""What every file system behind fsspec needs: uploads, clearing up, its client's words."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tfos.files.durable import tree_files

__all__ = ["remove_stale", "told_by_client", "upload_tree"]

_STACK_TRACE: Final = re.compile(r"(\n|\\n)(\t|\\t)at .*", re.DOTALL)
_STALE_AFTER_S: Final = 24 * 3600.0


def told_by_client(error: Exception) -> str:
    """Return the kind and words of a client's error; a Java server's stack trace is left out."""
    return f"{type(error).__name__}: {_STACK_TRACE.sub('', str(error))}"


def upload_tree(
    file_system: Any,
    local: str,
    remote: str,
    last: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Copy every file under a local directory to a remote one.

    The file `last` goes after the others, and `check` is called before it: what it raises stops it.
    """
    files = sorted(tree_files(local), key=lambda file: file == last)
    for directory in sorted({f"{remote}/{file}".rpartition("/")[0] for file in files}):
        file_system.makedirs(directory, exist_ok=True)
    for file in files:
        if file == last:
            check()
        file_system.put_file(os.path.join(local, *file.split("/")), f"{remote}/{file}")


def remove_stale(file_system: Any, directory: str, names: re.Pattern[str]) -> None:
    """Remove what killed processes left in a directory under such names, where that can be done.

    Left behind is what is older than a day: no write takes so long.
    """
    # Whatever goes wrong, such as another process being faster: no caller needs it.
    with suppress(Exception):
        oldest = time.time() - _STALE_AFTER_S
        for path in file_system.ls(directory, detail=False):
            name = str(path).rpartition("/")[2]
            if names.fullmatch(name) and file_system.modified(path).timestamp() < oldest:
                file_system.rm(path, recursive=True)
