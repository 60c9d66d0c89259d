"""Keep checkpoint directories on a local or mounted file system."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tfos.errors import CheckpointCorruptError, CheckpointError, CheckpointUnreadableError
from tfos.fault.checkpoints.storage import (
    LEFTOVERS,
    OPTION,
    PROBE,
    REMOVED,
    STAGING,
    CheckpointStorage,
    remove_staging,
    too_large,
)
from tfos.files.durable import (
    NotAFileError,
    explained,
    fsync_directory,
    fsync_tree,
    open_regular,
    read_chunks,
    remove_tree,
    write_durably,
)

__all__ = ["LocalStorage"]


class LocalStorage(CheckpointStorage):
    """A directory; what appears in it appears by rename."""

    def names(self) -> list[str]:
        """See `CheckpointStorage.names`."""
        with self._explained("listed"):
            try:
                return sorted(os.listdir(self.location))
            except FileNotFoundError:
                return []

    def read(self, name: str, file: str, most_bytes: int) -> bytes | None:
        """See `CheckpointStorage.read`."""
        path = os.path.join(self.location, name, file)
        with self._entry_explained(name):
            try:
                with open_regular(path) as source:
                    # Not only asked for its size: it may grow.
                    content = source.read(most_bytes + 1)
            except FileNotFoundError:
                return None
        if len(content) > most_bytes:
            raise too_large(path, os.path.getsize(path), most_bytes)
        return content

    def sizes(self, name: str) -> dict[str, int]:
        """See `CheckpointStorage.sizes`."""
        found = {}
        root = self.path(name)
        with self._entry_explained(name):
            for directory, _, names in os.walk(root, onerror=_raise_unless_gone):
                for file in names:
                    path = os.path.join(directory, file)
                    with suppress(FileNotFoundError):
                        status = os.lstat(path)
                        if stat.S_ISREG(status.st_mode):
                            inside = os.path.relpath(path, root).replace(os.sep, "/")
                            found[inside] = status.st_size
        return found

    def chunks(self, name: str, file: str) -> Iterator[bytes]:
        """See `CheckpointStorage.chunks`."""
        path = os.path.join(self.path(name), *file.split("/"))
        with self._entry_explained(name), suppress(FileNotFoundError), open_regular(path) as source:
            yield from read_chunks(source)

    @contextmanager
    def staging(self) -> Iterator[str]:
        """See `CheckpointStorage.staging`."""
        # In the store's own directory: only there is the final rename one step.
        path = self.path(STAGING + uuid.uuid4().hex)
        try:
            with self._explained("written"):
                os.makedirs(path)
            yield path
        finally:
            remove_staging(path)

    def publish(self, staging: str, name: str, last: str, check: Callable[[], None]) -> None:
        """See `CheckpointStorage.publish`."""
        with self._explained("written"):
            fsync_tree(staging)
            check()
            os.rename(staging, self.path(name))
            fsync_directory(self.location)

    def write(self, name: str, file: str, data: bytes) -> None:
        """See `CheckpointStorage.write`."""
        directory = self.path(name)
        aside = self.path(STAGING + uuid.uuid4().hex)
        with self._explained("written"):
            os.makedirs(directory, exist_ok=True)
            try:
                write_durably(aside, data)
                os.rename(aside, os.path.join(directory, file))
            except OSError:
                with suppress(OSError):
                    os.unlink(aside)
                raise
            fsync_directory(directory)

    def fetch(self, name: str, files: Iterable[str], directory: str) -> str:
        """See `CheckpointStorage.fetch`."""
        return self.path(name)

    def remove(self, name: str, first: str) -> None:
        """See `CheckpointStorage.remove`."""
        with self._explained("removed"):
            doomed = self.path(name)
            if not name.startswith(LEFTOVERS):
                try:
                    doomed = self.path(REMOVED + uuid.uuid4().hex)
                    os.rename(self.path(name), doomed)
                except FileNotFoundError:
                    return
            if os.path.isdir(doomed):
                remove_tree(doomed)
            elif os.path.lexists(doomed):
                os.unlink(doomed)

    def probe(self) -> None:
        """See `CheckpointStorage.probe`."""
        with explained("checkpoints cannot be kept", self.location, OPTION):
            os.makedirs(self.location, exist_ok=True)
            path = self.path(PROBE + uuid.uuid4().hex)
            try:
                write_durably(path, b"tfos")
                fsync_directory(self.location)
            finally:
                if os.path.lexists(path):
                    os.unlink(path)

    @contextmanager
    def _entry_explained(self, name: str) -> Iterator[None]:
        """Tell what is wrong with one entry from a storage that cannot be read."""
        try:
            with self._explained("read"):
                yield
        except CheckpointError as error:
            cause = error.__cause__
            path = self.path(name)
            if isinstance(cause, NotAFileError):
                raise CheckpointCorruptError(str(cause), path=path) from cause
            if isinstance(cause, NotADirectoryError):
                raise CheckpointCorruptError(f"{path} is not a directory", path=path) from cause
            if isinstance(cause, OSError) and cause.errno == errno.ELOOP:
                raise CheckpointCorruptError(
                    f"{path} cannot be followed: its symbolic links lead round in a circle",
                    path=path,
                ) from cause
            if isinstance(cause, PermissionError):
                raise CheckpointUnreadableError(
                    f"user {os.geteuid()} may not read {cause.filename or path}: change its "
                    "permissions or remove it",
                    path=path,
                ) from cause
            raise

    def _explained(self, done: str) -> Any:
        access = "read" if done in ("listed", "read") else "write"
        return explained(f"checkpoints could not be {done}", self.location, OPTION, access)


def _raise_unless_gone(error: OSError) -> None:
    # A checkpoint that is removed meanwhile is no failure of the one who looks.
    if not isinstance(error, FileNotFoundError):
        raise error
