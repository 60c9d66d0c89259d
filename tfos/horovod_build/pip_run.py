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
_LINES_BEFORE = 3
_LINES_AFTER = 10
_LAST_LINES = 5
# A compiler's command line goes on for thousands of characters.
_LINE_LENGTH = 300
_COMPLAINT = re.compile(
    r"\berror: |^CMake Error|^ERROR: |\*\*\* \[|\bKilled\b|No space left|undefined reference"
)
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
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return HorovodError(f"pip {subcommand} {how}", last_lines="\n".join(_telling(lines)))


def _telling(lines: Sequence[str]) -> list[str]:
    """Return the lines around the first complaint, and the last ones; between them pip tidies."""
    first = next((at for at, line in enumerate(lines) if _COMPLAINT.search(line)), len(lines))
    start = max(0, first - _LINES_BEFORE)
    told = list(lines[start : first + _LINES_AFTER])
    rest = lines[first + _LINES_AFTER :]
    if len(rest) > _LAST_LINES:
        told.append("...")
    return [line[:_LINE_LENGTH] for line in (*told, *rest[-_LAST_LINES:])]


def _percent(log: Path) -> int | None:
    found = _PERCENT.findall(_tail(log))
    return int(found[-1]) if found else None


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read()
