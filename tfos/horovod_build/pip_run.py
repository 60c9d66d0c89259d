"""Run pip into a log, with a deadline, and say its last lines when it fails."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfos.errors import HorovodError
from tfos.horovod_build.leash import leashed

__all__ = ["pip"]

_POLL_INTERVAL_S = 0.2
# Interrupted, pip puts back what it was about to replace.
_GRACE_S = 5.0
_LAST_LINES = 20
_TAIL_BYTES = 64 * 1024
# As make reports: "[ 45%] Building CXX object ...".
_PERCENT = re.compile(rb"^ *\[ *(\d+)%\]", re.MULTILINE)


def pip(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    timeout_s: float,
    on_percent: Callable[[int], None] = lambda _: None,
) -> None:
    """Run this interpreter's pip; blocks until it ended, at most `timeout_s`.

    Parameters
    ----------
    arguments
        The subcommand and its options.
    env, cwd
        Environment and working directory.
    log
        The file that everything it says is added to.
    timeout_s
        How long it may take.
    on_percent
        Called with how far make says that it is, when that changes.

    Raises
    ------
    HorovodError
        If it failed or did not end in time; nothing of it runs any more.
    """
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    deadline = time.monotonic() + timeout_s
    told = None
    with log.open("ab") as output:
        output.write(f"$ {' '.join(argv)}\n".encode())
        output.flush()
        with leashed(argv, env=env, cwd=cwd, output=output, grace_s=_GRACE_S) as process:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise _error(arguments[0], f"did not end within {timeout_s:g} s", log)
                percent = _percent(log)
                if percent is not None and percent != told:
                    told = percent
                    on_percent(percent)
                time.sleep(_POLL_INTERVAL_S)
    if process.returncode:
        raise _error(arguments[0], f"ended with status {process.returncode}", log)


def _error(subcommand: str, how: str, log: Path) -> HorovodError:
    lines = _tail(log).decode(errors="replace").splitlines()[-_LAST_LINES:]
    return HorovodError(f"pip {subcommand} {how}", last_lines="\n".join(lines))


def _percent(log: Path) -> int | None:
    found = _PERCENT.findall(_tail(log))
    return int(found[-1]) if found else None


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read()
