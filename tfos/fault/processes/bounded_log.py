"""Keep the beginning and the end of an endless stream of bytes in one file of bounded size."""

from __future__ import annotations

import os
import shutil
from typing import BinaryIO, Final

__all__ = ["BoundedLog"]

_MODE: Final = 0o600


class BoundedLog:
    """A log file of the beginning and the end of what is written.

    The first `head_bytes` are kept, and of the rest the last third of `tail_bytes` at least, two
    thirds at most; the last third is for joining them: never is more on the disk than both bounds
    and a line allow. While it is open, the beginning is in `path` and the end in ``path.tail`` and
    ``path.tail.old``; `close` joins them in `path`, with a line in between that says how much is
    missing. One thread at a time. An existing file is replaced; the new one is readable by its
    owner only.

    Raises
    ------
    OSError
        If the file cannot be created, and from `write` and `close` if it cannot be written.
    """

    def __init__(self, path: str, head_bytes: int, tail_bytes: int) -> None:
        self.path = path
        # Two pieces rotate: the older is dropped when the newer is full.
        self._pieces = (f"{path}.tail.old", f"{path}.tail")
        self._piece_bytes = max(1, tail_bytes // 3)
        self._dropped_bytes = 0
        self._old_bytes = 0
        self._in_head = True
        for piece in self._pieces:
            if os.path.exists(piece):
                os.unlink(piece)
        self._file = _create(path)
        self._room = head_bytes

    def write(self, data: bytes) -> None:
        """Add `data`."""
        view = memoryview(data)
        while view:
            if self._room == 0:
                self._roll()
            written = self._file.write(view[: self._room])
            self._room -= written
            view = view[written:]

    def close(self) -> None:
        """Join the pieces into one file. Idempotent."""
        if self._file.closed:
            return
        self._file.close()
        if self._in_head:
            return
        with open(self.path, "ab") as whole:
            if self._dropped_bytes:
                whole.write(b"\n[tfos: %d bytes left out here]\n" % self._dropped_bytes)
            for piece in self._pieces:
                if os.path.exists(piece):
                    with open(piece, "rb") as part:
                        shutil.copyfileobj(part, whole, 1 << 20)
                    os.unlink(piece)

    def abandon(self) -> None:
        """Close the open file and leave the pieces as they are: for a disk that is full."""
        self._file.close()

    def _roll(self) -> None:
        self._file.close()
        old, new = self._pieces
        if not self._in_head:
            self._dropped_bytes += self._old_bytes
            os.replace(new, old)
            self._old_bytes = self._piece_bytes
        self._in_head = False
        self._file = _create(new)
        self._room = self._piece_bytes


def _create(path: str) -> BinaryIO:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    return open(fd, "wb", buffering=0)
