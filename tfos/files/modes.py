"""Read and set the modes of files behind fsspec, which has no word for them."""

from __future__ import annotations

import os
import stat
from typing import Any

from tfos.files.open import is_object_store, protocols

__all__ = ["mode_of", "set_mode"]


def set_mode(file_system: Any, path: str, mode: int) -> None:
    """Set the mode of a file or directory where the file system has modes."""
    if is_object_store(file_system):
        return  # what its client calls chmod is about something else
    client: Any = getattr(file_system, "client", None)
    if "file" in protocols(file_system):
        os.chmod(path, mode)
    elif "webhdfs" in protocols(file_system):
        # It would send the number in decimal, and the server read it as octal.
        file_system.chmod(path, f"{mode:o}")
    elif hasattr(file_system, "chmod"):
        file_system.chmod(path, mode)
    elif hasattr(client, "set_permission"):
        client.set_permission(path, mode)


def mode_of(file_system: Any, path: str) -> int | None:
    """Return the mode of a file or directory; None where there is none, or nobody can tell."""
    try:
        info = file_system.info(path)
    except (OSError, NotImplementedError):
        return None
    mode = info.get("mode", info.get("permission"))
    return stat.S_IMODE(mode) if isinstance(mode, int) else None
