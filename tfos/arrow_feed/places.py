"""Choose a role host's local directories: its own, and those of its spool with their limits."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfos.config import FeedConfig

__all__ = ["Place", "choose_places", "host_directory"]

_SHARED_MEMORY = Path("/dev/shm")
# Others use /dev/shm too, and in containers it is often 64 MB: never fill it.
_SHARED_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Place:
    """A directory of a spool and the most bytes its segments may take there."""

    path: Path
    limit_bytes: int
    is_memory: bool = False


def host_directory(name: str, *, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the directory called `name` of a role host goes. Creates nothing.

    In the container's own directory on YARN, which goes with the container, unless ``TMPDIR`` is
    set; else where temporary files go.
    """
    container = None if "TMPDIR" in environ else _container_directory(environ)
    return (container or Path(tempfile.gettempdir())) / name


def _container_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the working directory of a YARN container; YARN names it by the container's id."""
    directory = Path(environ.get("PWD", ""))
    return directory if directory.name and directory.name == environ.get("CONTAINER_ID") else None


def choose_places(
    config: FeedConfig,
    name: str,
    *,
    environ: Mapping[str, str] = os.environ,
    shared_memory: Path = _SHARED_MEMORY,
) -> tuple[Place, ...]:
    """Return where a spool called `name` goes, the place to fill first at the front.

    With ``feed.spool_dir`` set that directory takes all; otherwise shared memory up to
    ``feed.memory_bytes``, then the local disk up to ``feed.disk_bytes``: the container's directory
    on YARN, elsewhere the first that Spark uses. Creates nothing.
    """
    total = config.memory_bytes + config.disk_bytes
    if config.spool_dir is not None:
        return (Place(Path(config.spool_dir).absolute() / name, total),)
    sparks = environ.get("SPARK_LOCAL_DIRS") or tempfile.gettempdir()
    disk = (_container_directory(environ) or Path(sparks.split(",")[0]).absolute()) / name
    if not (shared_memory.is_dir() and os.access(shared_memory, os.W_OK | os.X_OK)):
        return (Place(disk, total),)
    free = int(shutil.disk_usage(shared_memory).free * _SHARED_MEMORY_SHARE)
    memory = Place(shared_memory / name, min(config.memory_bytes, free), is_memory=True)
    return (memory, Place(disk, config.disk_bytes)) if config.disk_bytes else (memory,)
