"""Keep checkpoint directories behind fsspec: on object stores, and on HDFS."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tfos.errors import CheckpointCorruptError, CheckpointError, CheckpointUnreadableError
from tfos.fault.checkpoints.storage import (
    OPTION,
    PROBE,
    STAGING,
    CheckpointStorage,
    remove_staging,
    too_large,
)
from tfos.files.durable import (
    explained,
    out_of_space,
    read_chunks,
    remove_tree,
)
from tfos.files.remote import told_by_client, upload_tree

__all__ = ["HdfsStorage", "RemoteStorage"]

_logger = logging.getLogger(__name__)


class RemoteStorage(CheckpointStorage):
    """A directory of a file system without a rename of directories in one step."""

    def __init__(self, file_system: Any, root: str, location: str) -> None:
        super().__init__(location)
        self._fs = file_system
        self._root = root

    @property
    def staging_place(self) -> tuple[str, str]:
        """See `CheckpointStorage.staging_place`."""
        # Its own name: a training process may know it by a handle.
        return os.path.realpath(tempfile.gettempdir()), "TMPDIR"

    def names(self) -> list[str]:
        """See `CheckpointStorage.names`."""
        with self._explained("listed"):
            # Listings are cached by default, and other processes write here too.
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def read(self, name: str, file: str, most_bytes: int) -> bytes | None:
        """See `CheckpointStorage.read`."""
        path = f"{self._root}/{name}/{file}"
        with self._entry_explained(name):
            try:
                found = self._fs.info(path)
                if found["type"] != "file":
                    raise CheckpointCorruptError(f"{path} is not a regular file", path=path)
                if found["size"] > most_bytes:
                    raise too_large(path, found["size"], most_bytes)
                return bytes(self._fs.cat_file(path))
            except FileNotFoundError:
                return None

    def sizes(self, name: str) -> dict[str, int]:
        """See `CheckpointStorage.sizes`."""
        with self._entry_explained(name):
            root = f"{self._root}/{name}/"
            try:
                found = self._fs.find(root, detail=True)
            except FileNotFoundError:
                return {}
            if any(root not in path for path in found):
                # What is found is the entry itself.
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return {
                path[path.index(root) + len(root) :]: int(entry["size"])
                for path, entry in found.items()
            }

    def chunks(self, name: str, file: str) -> Iterator[bytes]:
        """See `CheckpointStorage.chunks`."""
        path = f"{self._root}/{name}/{file}"
        with (
            self._explained("read"),
            suppress(FileNotFoundError),
            self._fs.open(path, "rb") as source,
        ):
            yield from read_chunks(source)

    @contextmanager
    def staging(self) -> Iterator[str]:
        """See `CheckpointStorage.staging`."""
        with explained("a checkpoint could not be staged", *self.staging_place):
            path = tempfile.mkdtemp(prefix="tfos-checkpoint-")
        try:
            yield path
        finally:
            remove_staging(path)

    def publish(self, staging: str, name: str, last: str, check: Callable[[], None]) -> None:
        """See `CheckpointStorage.publish`."""
        with self._removed_on_failure(name, last), self._explained("written"):
            upload_tree(self._fs, staging, f"{self._root}/{name}", last, check)

    def write(self, name: str, file: str, data: bytes) -> None:
        """See `CheckpointStorage.write`."""
        path = f"{self._root}/{name}/{file}"
        aside = f"{self._root}/{STAGING}{uuid.uuid4().hex}"
        with self._explained("written"):
            self._fs.makedirs(f"{self._root}/{name}", exist_ok=True)
            # Only a move is one step everywhere: a file may show before it is whole.
            self._fs.pipe_file(aside, data)
            self._replace(aside, path)

    def fetch(self, name: str, files: Iterable[str], directory: str) -> str:
        """See `CheckpointStorage.fetch`."""
        target = os.path.join(directory, name)
        with explained("a checkpoint could not be loaded", directory, "TMPDIR"):
            remove_tree(target)
            os.makedirs(target)
        for file in files:
            local = os.path.join(target, *file.split("/"))
            os.makedirs(os.path.dirname(local), exist_ok=True)
            with self._explained("read", target):
                self._fs.get_file(f"{self._root}/{name}/{file}", local)
        return target

    def remove(self, name: str, first: str) -> None:
        """See `CheckpointStorage.remove`."""
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
        """See `CheckpointStorage.probe`."""
        path = f"{self._root}/{PROBE}{uuid.uuid4().hex}"
        with self._explained("kept"):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(path, b"tfos")
            self._fs.rm_file(path)

    def _replace(self, path: str, target: str) -> None:
        """Move a file to where another may be."""
        if self._fs.exists(target):
            self._fs.rm_file(target)
        self._fs.mv(path, target)

    @contextmanager
    def _removed_on_failure(self, name: str, first: str) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            try:
                self.remove(name, first)
            except CheckpointError as error:
                _logger.warning("an unfinished checkpoint stays until the next run: %s", error)
            raise

    @contextmanager
    def _entry_explained(self, name: str) -> Iterator[None]:
        """Tell what is wrong with one entry from a storage that cannot be read."""
        try:
            with self._explained("read"):
                yield
        except CheckpointError as error:
            path = self.path(name)
            if isinstance(error.__cause__, NotADirectoryError):
                raise CheckpointCorruptError(f"{path} is not a directory", path=path) from error
            if isinstance(error.__cause__, PermissionError):
                raise CheckpointUnreadableError(
                    f"{path} may not be read: {told_by_client(error.__cause__)}", path=path
                ) from error
            raise

    @contextmanager
    def _explained(self, done: str, local: str | None = None) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # clients of object stores raise types of their own
            if local is not None and out_of_space(error, local):
                with explained("a checkpoint could not be loaded", local, "TMPDIR"):
                    raise OSError(errno.ENOSPC, str(error)) from error
            raise CheckpointError(
                f"checkpoints could not be {done}: {told_by_client(error)} "
                f"({self.location}, set by {OPTION})"
            ) from error


class HdfsStorage(RemoteStorage):
    """A directory on HDFS; what appears in it appears by rename.

    A file of HDFS shows, empty or in part, before it is whole: a commit marker put in its place
    would be there for a moment without being one.
    """

    def publish(self, staging: str, name: str, last: str, check: Callable[[], None]) -> None:
        """See `CheckpointStorage.publish`."""
        aside = STAGING + uuid.uuid4().hex
        with self._removed_on_failure(aside, last), self._explained("written"):
            upload_tree(self._fs, staging, f"{self._root}/{aside}", last)
            check()
            self._fs.mv(f"{self._root}/{aside}", f"{self._root}/{name}")

    def _replace(self, path: str, target: str) -> None:
        self._fs.mv(path, target, overwrite=True)
