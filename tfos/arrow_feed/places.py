"""Choose the local directories a spool lies in, and how many bytes each may hold."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfos.config import FeedConfig

__all__ = ["Place", "choose_places"]

_SHARED_MEMORY = Path("/dev/shm")
# Others use /dev/shm too, and in containers it is often 64 MB: never fill it.
_SHARED_MEMORY_SHARE = 0.8
# YARN, then Spark: each names the disks meant for such files.
_LOCAL_DIRS = ("LOCAL_DIRS", "SPARK_LOCAL_DIRS")


@dataclass(frozen=True)
class Place:
    """A directory of a spool and the most bytes its segments may take there."""

    path: Path
    limit_bytes: int
    is_memory: bool = False


def choose_places(
    config: FeedConfig,
    name: str,
    *,
    environ: Mapping[str, str] = os.environ,
    shared_memory: Path = _SHARED_MEMORY,
) -> tuple[Place, ...]:
    """Return where a spool called `name` goes, the place to fill first at the front.

    With ``feed.spool_dir`` set that directory takes all; otherwise shared memory up to
    ``feed.memory_bytes``, then the local disk up to ``feed.disk_bytes``. Creates nothing.
    """
    total = config.memory_bytes + config.disk_bytes
    if config.spool_dir is not None:
        return (Place(Path(config.spool_dir).absolute() / name, total),)
    dirs = next((environ[v] for v in _LOCAL_DIRS if environ.get(v)), tempfile.gettempdir())
    disk = Path(dirs.split(",")[0]).absolute() / name
    if not (shared_memory.is_dir() and os.access(shared_memory, os.W_OK | os.X_OK)):
        return (Place(disk, total),)
    free = int(shutil.disk_usage(shared_memory).free * _SHARED_MEMORY_SHARE)
    memory = Place(shared_memory / name, min(config.memory_bytes, free), is_memory=True)
    return (memory, Place(disk, config.disk_bytes)) if config.disk_bytes else (memory,)
