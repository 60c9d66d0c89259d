"""Tell from a process's words that its machine has run out of something, and of what. Pure.

A disk that is full and a limit on processes that is reached are so for the next process, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["exhausted"]

_SPACE = re.compile(
    r"No space left on device|Disk quota exceeded|[Nn]o space is left for|Read-only file system"
    r"|database or disk is full"
)
# Python's words, those of what forks, and those of TensorFlow, OpenMP and OpenBLAS.
_PROCESSES = re.compile(
    r"can't start new thread|\[Errno 11\] Resource temporarily unavailable|could not be forked"
    r"|pthread_create\(?\)? failed|Thread creation failed|failed to create new OS thread"
    r"|fork: (retry: )?Resource temporarily unavailable"
)
_FILES = re.compile(r"Too many open files")
_SPACE_HINT = (
    "free space on that disk, or name another place: --checkpoint-dir, --model-dir, "
    "feed.spool_dir, or TMPDIR on the executors"
)
_PROCESSES_HINT = (
    "this host lets the user start no more processes or threads: raise the limit (ulimit -u, or "
    "pids.max of the container), or give the role fewer cores"
)
_FILES_HINT = (
    "this process may open no more files: close those that are done with, or raise the limit "
    "(ulimit -n, or LimitNOFILE of the service that starts the executors)"
)
_HINTS = ((_SPACE, _SPACE_HINT), (_PROCESSES, _PROCESSES_HINT), (_FILES, _FILES_HINT))


def exhausted(texts: Iterable[str]) -> str | None:
    """Return what to do about what has run out; None when the texts tell of no such thing."""
    hints = (hint for text in texts for words, hint in _HINTS if words.search(text))
    return next(hints, None)
