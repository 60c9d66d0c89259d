"""Write files and directories so that they survive a crash, and explain why they could not be."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from tfos.errors import CheckpointError

__all__ = [
    "NotAFileError",
    "explained",
    "fsync_directory",
    "fsync_tree",
    "open_regular",
    "out_of_space",
    "read_chunks",
    "remove_tree",
    "sha256_of",
    "tree_files",
    "write_durably",
]

_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_FULL_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 20


class NotAFileError(OSError):
    """A directory, a link, a FIFO or a device stands where a regular file should."""


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading; never blocks on a FIFO or a device, follows no link to one.

    Raises
    ------
    NotAFileError
        If something else is there.
    OSError
        If it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # A link, and a socket or a device without a driver.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotAFileError(f"{path} is not a regular file") from error
        raise
    file = os.fdopen(fd, "rb") if stat.S_ISREG(os.fstat(fd).st_mode) else None
    if file is None:
        os.close(fd)
        raise NotAFileError(f"{path} is not a regular file")
    return file


def write_durably(path: str, data: bytes) -> None:
    """Create `path` with `data` and bring it to the disk; its directory is the caller's to sync."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_directory(path: str) -> None:
    """Bring a directory's entries to the disk: renames in it, and new files' names."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(path: str) -> None:
    """Bring every file and directory under `path`, itself included, to the disk."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            fd = os.open(os.path.join(directory, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync_directory(directory)


def tree_files(path: str) -> list[str]:
    """Return every file under `path`, relative to it, with ``/`` between parts, sorted.

    Raises
    ------
    CheckpointError
        If there is anything but regular files and directories: a link may point anywhere, and what
        it points at is not part of what is kept.
    """
    found = []
    for directory, directories, names in os.walk(path):
        for name in (*directories, *names):
            full = os.path.join(directory, name)
            if os.path.islink(full) or not (os.path.isdir(full) or os.path.isfile(full)):
                raise CheckpointError(f"{full} is neither a regular file nor a directory")
        found += [os.path.relpath(os.path.join(directory, name), path) for name in names]
    return sorted(name.replace(os.sep, "/") for name in found)


def read_chunks(source: BinaryIO) -> Iterator[bytes]:
    """Yield an open file's content in pieces of at most 1 MiB; raises OSError."""
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def sha256_of(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of content that comes in pieces, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def remove_tree(path: str) -> None:
    """Remove a directory and all in it; one that is not there is fine. Raises OSError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise


def out_of_space(error: BaseException, path: str) -> bool:
    """Say whether `error` comes of a full disk, as an OSError or told by a library in its own way.

    TensorFlow reports a full disk as an error of its own, in the system's words or in none; so the
    disk under `path` is asked too.
    """
    if isinstance(error, OSError):
        return error.errno in _SPACE
    if any(os.strerror(number) in str(error) for number in _SPACE):
        return True
    try:
        return shutil.disk_usage(path).free < _NEARLY_FULL_BYTES
    except OSError:
        return False


@contextmanager
def explained(action: str, path: str, option: str, access: str = "write") -> Iterator[None]:
    """Turn an OSError inside the block into a CheckpointError for people.

    Parameters
    ----------
    action
        What failed: the message begins with it.
    path
        Where.
    option
        The command line option that says where.
    access
        What the system may have forbidden: ``read`` or ``write``.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{action}: {_reason(error, path, option, access)}") from error


def _reason(error: OSError, path: str, option: str, access: str) -> str:
    if error.errno in _SPACE:
        return f"no space is left for {path}; free some, or let {option} name another place"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"user {os.geteuid()} may not {access} {path} ({error}); change its permissions, or "
            f"let {option} name another place"
        )
    if error.errno == errno.EROFS:
        return f"{path} is on a read-only file system; let {option} name another place"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} is not a directory ({error}); let {option} name one"
    return f"{error} ({path}, set by {option})"
