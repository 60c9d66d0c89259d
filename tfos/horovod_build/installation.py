"""Bring a working Horovod into the running Python environment: the steps of ``tfos horovod``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tfos.errors import ConfigError, HorovodError
from tfos.horovod_build.allreduce import check_allreduce
from tfos.horovod_build.pip_run import pip
from tfos.horovod_build.toolchain import require_linux, require_pip, require_tensorflow
from tfos.horovod_build.wheel_build import Progress, obtain_wheel
from tfos.horovod_build.wheel_cache import WheelCache, build_settings
from tfos.horovod_installed import (
    horovod_problem,
    horovod_version,
    installed_distribution,
    tensorflow_distribution,
)

__all__ = ["check", "provide"]

# Horovod's needs outside of TensorFlow's; its wheel asks for no others.
_NEEDS = ("cloudpickle", "psutil", "pyyaml", "packaging")
_INSTALL_TIMEOUT_S = 600.0


def check(progress: Progress) -> None:
    """See that the installed Horovod fits the installed TensorFlow and reduces; a minute at most.

    Raises
    ------
    ConfigError
        If there is no TensorFlow, no Horovod, or it was built for another TensorFlow.
    HorovodError
        If two ranks could not reduce a number with it.
    """
    require_linux()
    tensorflow = require_tensorflow()
    problem = horovod_problem()
    if problem is not None:
        raise ConfigError(problem)
    _check_by_allreduce(tensorflow, progress)


def provide(cache_root: Path, progress: Progress, *, rebuild: bool = False) -> None:
    """Install a Horovod for the installed TensorFlow, and see it reduce.

    Nothing is done when the one that is installed has been checked before. Blocks for the minutes a
    build takes where the cache has no wheel. Where it is interrupted, the next call goes on.

    Parameters
    ----------
    cache_root
        The directory of built wheels.
    progress
        Told every step.
    rebuild
        Build and install anew, whatever is there.

    Raises
    ------
    ConfigError
        If this is not Linux, or there is no TensorFlow, compiler, make or pip.
    HorovodError
        If the build, the installation or the check failed.
    """
    require_linux()
    tensorflow = require_tensorflow()
    settings = build_settings(os.environ)
    if not rebuild and horovod_problem() is None:
        if _mark(cache_root, settings).exists():
            progress.say(
                f"Horovod {horovod_version()} for TensorFlow {tensorflow} is installed and was "
                "checked before; --check does it again"
            )
            return
        # Built by hand, or with other settings: the former may do.
        if not settings and _installed_works(tensorflow, progress):
            _set_mark(cache_root, settings)
            return
    require_pip()
    cache = WheelCache(cache_root, tensorflow, settings)
    wheel = obtain_wheel(cache, tensorflow, progress, rebuild=rebuild)
    _install(wheel, progress)
    try:
        _check_by_allreduce(tensorflow, progress)
    except HorovodError as error:
        raise HorovodError(
            f"{error}; the wheel is {wheel}: if it was built on another machine, run tfos horovod "
            "--rebuild",
            last_lines=error.last_lines,
        ) from error
    _set_mark(cache_root, settings)


def _installed_works(tensorflow: str, progress: Progress) -> bool:
    try:
        _check_by_allreduce(tensorflow, progress)
    except HorovodError as error:
        progress.say(f"the installed Horovod does not work and is replaced: {error}")
        return False
    return True


def _check_by_allreduce(tensorflow: str, progress: Progress) -> None:
    progress.say("checking: two ranks on this machine reduce a number")
    spent_s = check_allreduce()
    progress.say(
        f"Horovod {horovod_version()} works with TensorFlow {tensorflow} ({spent_s:.1f} s)"
    )


def _install(wheel: Path, progress: Progress) -> None:
    progress.say(f"installing it into {sys.prefix}")
    missing = [name for name in _NEEDS if installed_distribution(name) is None]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tfos-horovod-") as name:
        directory = Path(name)
        commands = [["install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]]
        if missing:
            commands.insert(0, ["install", *missing])
        for command in commands:
            left_s = _INSTALL_TIMEOUT_S - (time.monotonic() - began)
            try:
                pip(
                    command,
                    env=os.environ,
                    cwd=directory,
                    log=directory / "install.log",
                    timeout_s=left_s,
                )
            except HorovodError as error:
                raise HorovodError(
                    f"Horovod could not be installed into {sys.prefix}: {error}",
                    last_lines=error.last_lines,
                ) from error
    importlib.invalidate_caches()


def _mark(cache_root: Path, settings: Mapping[str, str]) -> Path:
    """Return the file whose existence says that what is installed here was checked.

    Its name is drawn from the files' checksums that pip recorded: another Horovod, TensorFlow or
    environment has another.
    """
    digest = hashlib.sha256(sys.prefix.encode())
    for setting in settings.items():
        digest.update(repr(setting).encode())
    for found in (installed_distribution("horovod"), tensorflow_distribution()):
        record = None if found is None else found.read_text("RECORD")
        digest.update(f"{record}".encode())
    return cache_root / "checked" / digest.hexdigest()[:16]


def _set_mark(cache_root: Path, settings: Mapping[str, str]) -> None:
    mark = _mark(cache_root, settings)
    # Without it the next call checks again, and that is all.
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
