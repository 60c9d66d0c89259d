"""Compile Horovod's source release into a wheel for the installed TensorFlow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tfos.errors import HorovodError
from tfos.horovod_build.headers import missing_headers, write_headers
from tfos.horovod_build.pip_run import pip
from tfos.horovod_build.toolchain import (
    build_environment,
    require_compiler,
    tensorflow_include,
    tools_to_fetch,
    write_cmake,
)
from tfos.horovod_build.wheel_cache import VERSION, WheelCache

__all__ = ["KNOWN_TENSORFLOWS", "Progress", "obtain_wheel"]

KNOWN_TENSORFLOWS = ("2.15", "2.21")
"""The TensorFlow releases, patches apart, for which Horovod was seen to build and to reduce."""

_SOURCE = f"horovod=={VERSION}"
_SOURCE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
_FETCH_TIMEOUT_S = 600.0
_BUILD_TIMEOUT_S = 3600.0
# What a compiler takes to read TensorFlow's headers.
_COMPILER_BYTES = 1 << 30


@dataclass(frozen=True)
class Progress:
    """Where to tell how far long work is."""

    say: Callable[[str], None]
    """Called with one line at every step."""
    percent: Callable[[int], None]
    """Called with how much is compiled, 0 to 100."""


def obtain_wheel(cache: WheelCache, tensorflow: str, progress: Progress, *, rebuild: bool) -> Path:
    """Return a wheel for the installed TensorFlow: from the cache, or built now.

    Blocks for the minutes a build takes, an hour at most; another process that builds into the same
    cache is waited for. Interrupted, it leaves nothing but the cache as it was.

    Parameters
    ----------
    cache
        Where it is looked for and kept.
    tensorflow
        The installed TensorFlow's version.
    progress
        Told every step.
    rebuild
        Build it even if the cache has it.

    Raises
    ------
    ConfigError
        If this machine has no compiler, or TensorFlow no headers.
    HorovodError
        If the build failed; names its log.
    """
    wheel = None if rebuild else cache.wheel()
    if wheel is None:
        require_compiler()
        waiting = f"another process is building in {cache.root}: waiting for it"
        with cache.locked(lambda: progress.say(waiting)) as work:
            # The process that was waited for may have built the very same.
            wheel = None if rebuild else cache.wheel()
            if wheel is None:
                return _build(cache, work, tensorflow, progress)
    progress.say(f"Horovod {VERSION} for TensorFlow {tensorflow} is in the cache: {wheel}")
    return wheel


def _build(cache: WheelCache, work: Path, tensorflow: str, progress: Progress) -> Path:
    if not tensorflow.startswith(tuple(f"{known}." for known in KNOWN_TENSORFLOWS)):
        known = " and ".join(KNOWN_TENSORFLOWS)
        progress.say(
            f"warning: nobody has tried Horovod {VERSION} with TensorFlow {tensorflow} yet, only "
            f"with {known}; trying"
        )
    log = work / "build.log"
    try:
        wheel = _compile(work, log, tensorflow, progress)
    except HorovodError as error:
        log.replace(cache.log)
        raise HorovodError(
            f"Horovod {VERSION} could not be built for TensorFlow {tensorflow}: {error}; all that "
            f"was said is in {cache.log}",
            last_lines=error.last_lines,
        ) from error
    with contextlib.suppress(OSError):
        log.replace(cache.log)
    return cache.keep(wheel)


def _compile(work: Path, log: Path, tensorflow: str, progress: Progress) -> Path:
    tools, headers, temporary, built = (
        work / name for name in ("tools", "headers", "tmp", "wheels")
    )
    temporary.mkdir()
    write_headers(missing_headers(tensorflow_include()), headers)
    cores = _cores()
    wanted = tools_to_fetch()
    progress.say(f"fetching what the build needs: {', '.join(wanted)}")
    pip(
        ["install", "--target", str(tools), *wanted],
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=work,
        log=log,
        timeout_s=_FETCH_TIMEOUT_S,
    )
    write_cmake(os.environ, tools)
    env = build_environment(os.environ, tools, headers, temporary, cores)
    source = work / "source.txt"
    source.write_text(f"{_SOURCE} --hash=sha256:{_SOURCE_SHA256}\n", encoding="utf-8")
    progress.say(
        f"building Horovod {VERSION} for TensorFlow {tensorflow}, {cores} compilers at a time: "
        "some minutes, once"
    )
    # pip's own cache would hand out a wheel that was built for another TensorFlow.
    own = ("--no-cache-dir", "--no-build-isolation", "--no-deps", "--no-binary", "horovod")
    pip(
        ["wheel", "-v", *own, "--wheel-dir", str(built), "--requirement", str(source)],
        env=env,
        cwd=work,
        log=log,
        timeout_s=_BUILD_TIMEOUT_S,
        on_percent=progress.percent,
    )
    return next(built.glob("horovod-*.whl"))


def _cores() -> int:
    """Return how many compilers this machine bears at a time."""
    by_memory = psutil.virtual_memory().available // _COMPILER_BYTES
    return max(1, min(len(os.sched_getaffinity(0)), by_memory))
