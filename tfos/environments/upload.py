"""Put a packed environment where the whole cluster reads it: once, whole, readable by everyone."""

from __future__ import annotations

import contextlib
import re
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfos.environments.progress import Progress, in_words, percent_of
from tfos.errors import InfrastructureError
from tfos.files.modes import mode_of, set_mode
from tfos.files.open import is_object_store, open_file_system
from tfos.files.remote import remove_stale

__all__ = ["UploadedArchive", "upload"]

_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o755
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)


@dataclass(frozen=True)
class UploadedArchive:
    """An archive in the cluster's file system.

    Parameters
    ----------
    url
        What Spark is given.
    shipped_bytes
        How much was uploaded: 0 where it was there already.
    private_because
        Why not every user of the cluster can read it; None where all can, or none can tell. YARN
        then unpacks it again for each application instead of once on each host.
    """

    url: str
    shipped_bytes: int
    private_because: str | None


def upload(archive: Path, base_url: str, progress: Progress) -> UploadedArchive:
    """Bring `archive` into the directory `base_url` under its own name, unless it is there.

    Its name stands for its content, so what is there is what would be uploaded; it is never
    replaced, because running applications may use it. Blocks for as long as the upload takes.
    Several processes may do this at once. What killed ones left in the directory is removed
    a day later.

    Parameters
    ----------
    archive
        What `pack` returned.
    base_url
        A directory that every host of the cluster reads, such as ``hdfs://namenode:8020/tfos``.
    progress
        Told every step, and how much is uploaded.

    Raises
    ------
    ConfigError
        If no file system is known for the URL; names ``spark.staging_dir``.
    InfrastructureError
        If it cannot be written.
    """
    file_system, directory, _ = open_file_system(base_url, "spark.staging_dir")
    directory = directory.rstrip("/")
    place = f"{directory}/{archive.name}"
    base = base_url if "://" in base_url else f"file://{directory}"
    url = f"{base.rstrip('/')}/{archive.name}"
    size_bytes = archive.stat().st_size
    with _explained(url):
        # Listings are cached by default, and other processes write here too.
        file_system.invalidate_cache()
        there = bool(file_system.exists(place))
        if not there:
            progress.say(f"uploading {in_words(size_bytes)} to {url}")
            there = not _put(file_system, archive, place, progress)
        if there:
            progress.say(f"{url} is there already: nothing is uploaded")
        private = _private_because(file_system, place)
    return UploadedArchive(url, 0 if there else size_bytes, private)


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    # Each file system has errors of its own.
    except Exception as error:
        raise InfrastructureError(
            f"the environment could not be uploaded to {url}: {error}; name a directory that you "
            "may write and that every host of the cluster reads"
        ) from error


def _put(file_system: Any, archive: Path, place: str, progress: Progress) -> bool:
    """Upload under another name, then rename; False if somebody else was faster."""
    callback = _callback(archive.stat().st_size, progress)
    if is_object_store(file_system):
        file_system.put_file(str(archive), place, callback=callback)
        progress.percent(100)
        return True
    directory, _, name = place.rpartition("/")
    aside = f"{directory}/.{name}.{uuid.uuid4().hex[:8]}.part"
    _make_directory(file_system, directory)
    remove_stale(file_system, directory, _PART)
    try:
        file_system.put_file(str(archive), aside, callback=callback)
        set_mode(file_system, aside, _FILE_MODE)
        file_system.invalidate_cache()
        if file_system.exists(place):
            return False
        try:
            file_system.mv(aside, place)
        except Exception:
            file_system.invalidate_cache()
            if not file_system.exists(place):
                raise
            return False
    finally:
        with contextlib.suppress(Exception):
            if file_system.exists(aside):
                file_system.rm_file(aside)
    progress.percent(100)
    return True


def _callback(size_bytes: int, progress: Progress) -> Any:
    """Return what fsspec tells how much it has uploaded."""
    from fsspec.callbacks import Callback

    advance = percent_of(size_bytes, progress)

    class Told(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            advance(inc)

    return Told(size=size_bytes)


def _make_directory(file_system: Any, directory: str) -> None:
    """Make a directory and those above it that are missing, each open to everyone's reading."""
    missing = []
    while directory and not file_system.exists(directory):
        missing.append(directory)
        directory = directory.rpartition("/")[0]
    for each in reversed(missing):
        file_system.makedirs(each, exist_ok=True)
        set_mode(file_system, each, _DIRECTORY_MODE)


def _private_because(file_system: Any, place: str) -> str | None:
    """Say what keeps others from reading `place`; YARN asks the same of its public cache."""
    mode = mode_of(file_system, place)
    if mode is not None and not mode & stat.S_IROTH:
        return f"{place} cannot be read by everyone (mode {mode:o})"
    directory = place.rpartition("/")[0]
    while directory:
        mode = mode_of(file_system, directory)
        if mode is not None and not mode & stat.S_IXOTH:
            return f"{directory} cannot be entered by everyone (mode {mode:o})"
        directory = directory.rpartition("/")[0]
    return None
