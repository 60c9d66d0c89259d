"""Keep built wheels by what they were built for, and let one process build at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tfos.errors import HorovodError
from tfos.files.cache import cache_directory, locked
from tfos.files.private import refuse_foreign

__all__ = ["VERSION", "WheelCache", "build_settings", "default_directory"]

VERSION = "0.28.1"
"""The version of Horovod that is built: its last one."""

_INSTEAD = "name another by --cache"

# What changes the wheel. Everything else that begins with HOROVOD_ is for running.
_SETTING_PREFIXES = tuple(
    f"HOROVOD_{name}"
    for name in ("ALLOW_MIXED", "BUILD", "CUDA", "DEBUG", "GPU", "NCCL", "NVTX", "ROCM", "WITH")
)


def default_directory(environ: Mapping[str, str]) -> Path:
    """Return where wheels are kept unless told otherwise: ``$XDG_CACHE_HOME/tfos/horovod``."""
    return cache_directory(environ, "horovod")


def build_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return those variables of `environ` that make a different wheel, as for GPUs."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(_SETTING_PREFIXES) and value
    }


class WheelCache:
    """The wheels of one TensorFlow version and one set of build settings.

    Parameters
    ----------
    root
        The cache directory; the first build creates it.
    tensorflow
        TensorFlow's version.
    settings
        See `build_settings`.
    """

    def __init__(self, root: Path, tensorflow: str, settings: Mapping[str, str]) -> None:
        self.root = root
        name = f"tf-{tensorflow}"
        if settings:
            name += f"-{_digest(settings)}"
        self.directory = root / name
        """Where the wheels and the log of the last build are."""

    @property
    def log(self) -> Path:
        """The log of the last build for this Python."""
        return self.directory / f"build-{_python_tag()}.log"

    def wheel(self) -> Path | None:
        """Return the wheel for this Python and platform; None if it is not built yet.

        Raises
        ------
        HorovodError
            If the cache belongs to another user.
        """
        refuse_foreign(self.root, instead=_INSTEAD, error=HorovodError)
        pattern = f"horovod-{VERSION}-{_python_tag()}-*{_platform_tag()}.whl"
        return next(iter(sorted(self.directory.glob(pattern))), None)

    def keep(self, built: Path) -> Path:
        """Move a wheel in, whole or not at all; return where it is now.

        `built` has to be on the cache's file system: in a directory from `locked`.
        """
        with built.open("rb") as file:
            os.fsync(file.fileno())
        return built.rename(self.directory / built.name)

    @contextlib.contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[Path]:
        """Hold the right to build into this cache; yields an empty directory to do it in.

        The directory goes with the block, and what killed builds left goes when the next begins.
        Blocks while another process builds, at most 30 minutes.

        Parameters
        ----------
        on_wait
            Called once if another process is building.

        Raises
        ------
        HorovodError
            If the other build does not end, or the directory cannot be written.
        """
        with locked(self.root, on_wait, error=HorovodError, instead=_INSTEAD) as work:
            self.directory.mkdir(exist_ok=True)
            try:
                yield work
            finally:
                # What a build that failed or was interrupted leaves empty says nothing.
                with contextlib.suppress(OSError):
                    self.directory.rmdir()


def _python_tag() -> str:
    return f"cp{sys.version_info.major}{sys.version_info.minor}"


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _digest(settings: Mapping[str, str]) -> str:
    text = "\n".join(f"{name}={value}" for name, value in sorted(settings.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
