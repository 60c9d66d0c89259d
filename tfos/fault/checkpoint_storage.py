"""Keep checkpoint directories somewhere: on a local file system, or behind fsspec.

Locally a directory appears whole, by rename. Elsewhere its files arrive one by one and the commit
marker last, so that whoever lists meanwhile finds no marker.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import fsspec

from tfos.errors import CheckpointError, ConfigError
from tfos.fault.durable_files import (
    explained,
    fsync_directory,
    fsync_tree,
    remove_tree,
    tree_files,
    write_durably,
)

__all__ = ["CheckpointStorage", "open_file_system", "open_storage", "sha256_of", "upload_tree"]

_logger = logging.getLogger(__name__)

_OPTION: Final = "--checkpoint-dir"
_STAGING: Final = ".staging-"
_REMOVED: Final = ".removed-"
_PROBE: Final = ".probe-"
_LEFTOVERS: Final = (_STAGING, _REMOVED, _PROBE)
_HASH_BYTES: Final = 1 << 20


class CheckpointStorage(ABC):
    """One directory of checkpoint directories.

    Every method blocks for as long as the storage takes and raises CheckpointError when it fails.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    @property
    def staging_place(self) -> tuple[str, str]:
        """Where `staging` lies, and the option or variable that decides it."""
        return self.location, _OPTION

    def path(self, name: str) -> str:
        """Return the full path or URL of an entry."""
        return f"{self.location}/{name}"

    @abstractmethod
    def names(self) -> list[str]:
        """Return the entries, sorted; none when the directory is not there."""

    def leftovers(self) -> list[str]:
        """Return the entries that a process which died in the middle of its work left behind."""
        return [name for name in self.names() if name.startswith(_LEFTOVERS)]

    @abstractmethod
    def read(self, name: str, file: str) -> bytes | None:
        """Return a small file of an entry; None when it is not there."""

    @abstractmethod
    def sizes(self, name: str, files: Iterable[str]) -> dict[str, int]:
        """Return the size in bytes of those of these files of an entry that are there."""

    @abstractmethod
    @contextmanager
    def staging(self) -> Iterator[str]:
        """Give an empty local directory for a checkpoint in the making; gone after the block."""

    @abstractmethod
    def publish(self, staging: str, name: str, last: str) -> None:
        """Make the staged directory the entry `name`, its file `last` appearing no sooner."""

    @abstractmethod
    def fetch(self, name: str, files: Iterable[str], directory: str) -> str:
        """Return a local directory with these files of an entry, in `directory` if need be."""

    @abstractmethod
    def remove(self, name: str, first: str) -> None:
        """Remove an entry, its file `first` before the others. Idempotent."""

    @abstractmethod
    def probe(self) -> None:
        """Write and remove a small file, making the directory if it is not there."""


class _LocalStorage(CheckpointStorage):
    def names(self) -> list[str]:
        with self._explained("listed"):
            try:
                return sorted(os.listdir(self.location))
            except FileNotFoundError:
                return []

    def read(self, name: str, file: str) -> bytes | None:
        with self._explained("read"):
            try:
                with open(os.path.join(self.location, name, file), "rb") as source:
                    return source.read()
            except FileNotFoundError:
                return None

    def sizes(self, name: str, files: Iterable[str]) -> dict[str, int]:
        found = {}
        with self._explained("read"):
            for file in files:
                try:
                    found[file] = os.path.getsize(os.path.join(self.path(name), *file.split("/")))
                except FileNotFoundError:
                    continue
        return found

    @contextmanager
    def staging(self) -> Iterator[str]:
        # In the store's own directory: only there is the final rename one step.
        path = self.path(_STAGING + uuid.uuid4().hex)
        try:
            with self._explained("written"):
                os.makedirs(path)
            yield path
        finally:
            _remove_or_warn(path)

    def publish(self, staging: str, name: str, last: str) -> None:
        with self._explained("written"):
            fsync_tree(staging)
            os.rename(staging, self.path(name))
            fsync_directory(self.location)

    def fetch(self, name: str, files: Iterable[str], directory: str) -> str:
        return self.path(name)

    def remove(self, name: str, first: str) -> None:
        with self._explained("removed"):
            doomed = self.path(name)
            if not name.startswith(_LEFTOVERS):
                try:
                    doomed = self.path(_REMOVED + uuid.uuid4().hex)
                    os.rename(self.path(name), doomed)
                except FileNotFoundError:
                    return
            if os.path.isdir(doomed):
                remove_tree(doomed)
            elif os.path.lexists(doomed):
                os.unlink(doomed)

    def probe(self) -> None:
        with explained("checkpoints cannot be kept", self.location, _OPTION):
            os.makedirs(self.location, exist_ok=True)
            path = self.path(_PROBE + uuid.uuid4().hex)
            try:
                write_durably(path, b"tfos")
                fsync_directory(self.location)
            finally:
                if os.path.lexists(path):
                    os.unlink(path)

    def _explained(self, done: str) -> Any:
        return explained(f"checkpoints could not be {done}", self.location, _OPTION)


class _RemoteStorage(CheckpointStorage):
    def __init__(self, file_system: Any, root: str, location: str) -> None:
        super().__init__(location)
        self._fs = file_system
        self._root = root

    @property
    def staging_place(self) -> tuple[str, str]:
        return tempfile.gettempdir(), "TMPDIR"

    def names(self) -> list[str]:
        with self._explained("listed"):
            # Listings are cached by default, and other processes write here too.
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def read(self, name: str, file: str) -> bytes | None:
        with self._explained("read"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}/{file}"))
            except FileNotFoundError:
                return None

    def sizes(self, name: str, files: Iterable[str]) -> dict[str, int]:
        with self._explained("read"):
            root = f"{self._root}/{name}/"
            found = self._fs.find(root, detail=True)
            return {
                path[path.index(root) + len(root) :]: int(entry["size"])
                for path, entry in found.items()
            }

    @contextmanager
    def staging(self) -> Iterator[str]:
        with explained("a checkpoint could not be staged", *self.staging_place):
            path = tempfile.mkdtemp(prefix="tfos-checkpoint-")
        try:
            yield path
        finally:
            _remove_or_warn(path)

    def publish(self, staging: str, name: str, last: str) -> None:
        try:
            with self._explained("written"):
                upload_tree(self._fs, staging, f"{self._root}/{name}", last)
        except CheckpointError:
            try:
                self.remove(name, last)
            except CheckpointError as error:
                _logger.warning("an unfinished checkpoint stays until the next save: %s", error)
            raise

    def fetch(self, name: str, files: Iterable[str], directory: str) -> str:
        target = os.path.join(directory, name)
        with explained("a checkpoint could not be loaded", directory, "TMPDIR"):
            remove_tree(target)
            os.makedirs(target)
        for file in files:
            local = os.path.join(target, *file.split("/"))
            os.makedirs(os.path.dirname(local), exist_ok=True)
            with self._explained("read"):
                self._fs.get_file(f"{self._root}/{name}/{file}", local)
        return target

    def remove(self, name: str, first: str) -> None:
        with self._explained("removed"):
            self._fs.invalidate_cache()
            path = f"{self._root}/{name}"
            for doomed in (f"{path}/{first}", path):
                try:
                    if self._fs.exists(doomed):
                        self._fs.rm(doomed, recursive=doomed == path)
                except FileNotFoundError:
                    continue  # somebody else was faster

    def probe(self) -> None:
        path = f"{self._root}/{_PROBE}{uuid.uuid4().hex}"
        with self._explained("kept"):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(path, b"tfos")
            self._fs.rm_file(path)

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            with explained(f"checkpoints could not be {done}", self.location, _OPTION):
                yield
        except CheckpointError:
            raise
        except Exception as error:  # clients of object stores raise types of their own
            raise CheckpointError(
                f"checkpoints could not be {done}: {type(error).__name__}: {error} "
                f"({self.location}, set by {_OPTION})"
            ) from error


def open_storage(url: str, job_name: str) -> CheckpointStorage:
    """Open the directory of a job's checkpoints under a path or URL; touches nothing yet.

    Raises
    ------
    ConfigError
        If the URL's scheme is unknown, or its client is not installed.
    """
    file_system, root, local = open_file_system(url, _OPTION)
    if local:
        return _LocalStorage(f"{os.path.abspath(root).rstrip('/')}/{job_name}")
    root = root.rstrip("/")
    return _RemoteStorage(file_system, f"{root}/{job_name}", f"{url.rstrip('/')}/{job_name}")


def open_file_system(url: str, option: str) -> tuple[Any, str, bool]:
    """Return the fsspec file system of a URL, the path in it, and whether it is the local one.

    Raises
    ------
    ConfigError
        As `open_storage` says; names `option`.
    """
    try:
        file_system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{option} {url!r} cannot be used: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{option} {url!r} cannot be reached: {error}") from error
    protocol = file_system.protocol
    names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
    return file_system, str(root), "file" in names


def upload_tree(file_system: Any, local: str, remote: str, last: str | None = None) -> None:
    """Copy every file under a local directory to a remote one, the file `last` after the others."""
    files = sorted(tree_files(local), key=lambda file: file == last)
    for directory in sorted({f"{remote}/{file}".rpartition("/")[0] for file in files}):
        file_system.makedirs(directory, exist_ok=True)
    for file in files:
        file_system.put_file(os.path.join(local, *file.split("/")), f"{remote}/{file}")


def sha256_of(path: str) -> str:
    """Return a file's SHA-256 in hexadecimal; raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _remove_or_warn(path: str) -> None:
    # Leftovers cost space, not correctness: the next save removes them.
    def warn(_: object, name: str, failure: Any) -> None:
        if not isinstance(failure[1], FileNotFoundError):
            _logger.warning("%s could not be removed: %s", name, failure[1])

    shutil.rmtree(path, onerror=warn)
