"""Write a gzip-compressed tar archive fast: every core compresses."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from tfos.errors import InfrastructureError

__all__ = ["GzipWriter", "write_archive"]

_BLOCK_BYTES = 1 << 20
_MOST_THREADS = 16
# Shared libraries shrink by little more at higher levels, at several times the cost.
_LEVEL = 1
_GZIP = zlib.MAX_WBITS | 16


class GzipWriter:
    """Compress what is written, a block at a time, in several threads, in the order written.

    Each block becomes a member of its own; gzip reads members that follow each other as one.

    Parameters
    ----------
    target
        What the compressed bytes are written to.
    on_bytes
        Called with how many bytes were taken, from the thread that writes.
    threads
        How many blocks are compressed at once; by default one for each core.
    """

    def __init__(
        self, target: BinaryIO, on_bytes: Callable[[int], None], threads: int | None = None
    ) -> None:
        count = threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._target = target
        self._on_bytes = on_bytes
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="gzip")
        # Bounded: the archive is larger than memory may be.
        self._most_waiting = 2 * count
        self._waiting: deque[Future[bytes]] = deque()
        self._block = bytearray()

    def write(self, data: bytes) -> int:
        """Take `data`; blocks while the threads are busy."""
        self._block += data
        while len(self._block) >= _BLOCK_BYTES:
            self._submit(bytes(self._block[:_BLOCK_BYTES]))
            del self._block[:_BLOCK_BYTES]
        self._on_bytes(len(data))
        return len(data)

    def __enter__(self) -> GzipWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._submit(bytes(self._block))
                while self._waiting:
                    self._target.write(self._waiting.popleft().result())
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self, block: bytes) -> None:
        self._waiting.append(self._pool.submit(_compress, block))
        if len(self._waiting) > self._most_waiting:
            self._target.write(self._waiting.popleft().result())


def _compress(block: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return compressor.compress(block) + compressor.flush()


def write_archive(
    path: Path, files: Iterable[tuple[str, Path]], on_bytes: Callable[[int], None]
) -> None:
    """Write `files` to the new archive `path`, readable and owned as if by everyone.

    Parameters
    ----------
    files
        Names in the archive and where the files are. A link whose target is a plain name stays a
        link, any other becomes what it points to.
    on_bytes
        Called with how many bytes were read.

    Raises
    ------
    InfrastructureError
        If a file cannot be read or changed meanwhile, or there is no room.
    """
    try:
        with path.open("xb") as target:
            with GzipWriter(target, on_bytes) as writer, _tar(writer) as archive:
                for name, source in files:
                    _add(archive, name, source)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise InfrastructureError(
            f"the environment could not be packed into {path.parent}: {error}; let XDG_CACHE_HOME "
            "name a directory with more room, and change nothing in the environment meanwhile"
        ) from error


def _tar(writer: GzipWriter) -> tarfile.TarFile:
    # A stream: tarfile then never asks for a position.
    return tarfile.open(fileobj=writer, mode="w|", bufsize=_BLOCK_BYTES)  # type: ignore[call-overload,no-any-return]


def _add(archive: tarfile.TarFile, name: str, source: Path) -> None:
    info = tarfile.TarInfo(name)
    if source.is_symlink() and "/" not in os.readlink(source):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(source)
        archive.addfile(info)
        return
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        info.size = status.st_size
        # Whole seconds, as bytecode has it: a fraction costs a header of its own.
        info.mtime = int(status.st_mtime)
        info.mode = 0o755 if status.st_mode & 0o100 else 0o644
        archive.addfile(info, file)
