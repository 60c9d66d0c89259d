"""Keep what is costly to make in the user's cache, and let one process make it at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tfos.account import home_directory
from tfos.errors import ConfigError, TfosError
from tfos.files.private import refuse_foreign

__all__ = ["cache_directory", "locked"]

_LOCK_TIMEOUT_S = 1800.0
_LOCK_POLL_INTERVAL_S = 0.5
_WORK_PREFIX = ".build-"


def cache_directory(environ: Mapping[str, str], name: str) -> Path:
    """Return where things of one kind are kept: ``$XDG_CACHE_HOME/tfos/<name>``.

    Raises
    ------
    ConfigError
        If nothing names a place: the user has no home directory.
    """
    given = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    if os.path.isabs(given):
        return Path(given, "tfos", name)
    home = home_directory()
    if home is None:
        raise ConfigError(
            f"there is no place for the cache of {name}: user id {os.getuid()} has no home "
            "directory; set XDG_CACHE_HOME or HOME"
        )
    return home / ".cache" / "tfos" / name


@contextlib.contextmanager
def locked(
    root: Path, on_wait: Callable[[], None], *, error: type[TfosError], instead: str
) -> Iterator[Path]:
    """Hold the right to make something for the cache `root`; yields an empty directory to do it in.

    The directory is on the cache's file system, so what is made there goes in by a rename. It goes
    with the block, and what killed processes left goes when the next begins. Blocks while another
    process is at it, at most 30 minutes.

    Parameters
    ----------
    root
        The cache; created on first use.
    on_wait
        Called once if another process is at it.
    error
        What is raised if that process does not end, or the cache cannot be written or belongs to
        another user.
    instead
        How another cache is named: the end of the error's message.
    """

    def unwritable(cause: OSError) -> TfosError:
        return error(f"the cache {root} cannot be written: {cause}; {instead}")

    try:
        root.mkdir(0o755, parents=True, exist_ok=True)
        refuse_foreign(root, instead=instead, error=error)
        lock = (root / ".lock").open("w")
    except OSError as cause:
        raise unwritable(cause) from cause
    with lock:
        try:
            ours = _await_lock(lock.fileno(), on_wait)
        except OSError as cause:
            raise error(f"the cache {root} cannot be locked: {cause}; {instead}") from cause
        if not ours:
            raise error(
                f"another build in {root} has not ended within {_LOCK_TIMEOUT_S:g} s: "
                f"look for it, or {instead}"
            )
        for left in root.glob(f"{_WORK_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=root))
        except OSError as cause:
            raise unwritable(cause) from cause
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _await_lock(fd: int, on_wait: Callable[[], None]) -> bool:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    waited = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        if not waited:
            on_wait()
            waited = True
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOCK_POLL_INTERVAL_S)
