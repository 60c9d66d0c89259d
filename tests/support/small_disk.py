"""Mount a small file system, for tests that fill it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.services import tell_missing

__all__ = ["mounted"]


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    """Make a directory with a tmpfs on it, mounted with such options as ``size=1m``."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    try:
        subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        tell_missing(f"a small disk needs the right to mount a tmpfs: {error}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], timeout=10, check=True)
