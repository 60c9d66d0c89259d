"""Run one spark-submit as a child: pass signals on, keep the last deadline, leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psutil

from tfos.errors import ExitCode, InterruptedRunError, LaunchError

__all__ = [
    "BACKSTOP_S",
    "INTERRUPT_EXTRA_S",
    "SparkExit",
    "heard_signals",
    "raised_signals",
    "run_spark_submit",
]

INTERRUPT_EXTRA_S: Final = 15.0
"""Beyond the grace period: the driver stops Spark and writes its record."""

BACKSTOP_S: Final = 60.0
"""Beyond ``--timeout`` and the grace period: the driver keeps that time itself, if it lives."""

_POLL_S = 0.1
_SWEEP_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OWN_CODES = frozenset(int(code) for code in ExitCode)


@dataclass(frozen=True)
class SparkExit:
    """How spark-submit ended.

    Parameters
    ----------
    returncode
        Its return code as `subprocess` gives it: minus the signal's number for a signal.
    driver_started
        Whether the driver's Python process came up.
    signal_name
        The first signal that asked this process to end; None for none.
    timed_out
        Whether the last deadline passed.
    """

    returncode: int
    driver_started: bool
    signal_name: str | None = None
    timed_out: bool = False

    @property
    def exit_code(self) -> int:
        """What ``pl_submit`` ends with: the driver's own code wherever it said one."""
        code = self.returncode
        if self.timed_out:
            return ExitCode.TIMEOUT
        own = code in _OWN_CODES and (self.driver_started or code == 0)
        if self.signal_name is not None:
            # spark-submit's own 1 after a signal is the signal's doing, not a defect.
            return code if own and code != ExitCode.INTERNAL else ExitCode.INTERRUPTED
        return code if own else ExitCode.INFRASTRUCTURE


def run_spark_submit(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    pid_file: Path,
    grace_s: float,
    timeout_s: float | None = None,
) -> SparkExit:
    """Run `command` in a session of its own and block until it and everything it started is gone.

    The first SIGINT, SIGTERM or SIGHUP goes to the driver's Python process (before there is one,
    everything is killed), which then has `grace_s` + `INTERRUPT_EXTRA_S` seconds to end; a second
    one, or that time, kills everything. So does `timeout_s` + `grace_s` + `BACKSTOP_S`. Call it
    from the main thread; in others signals are left alone. When it returns, the child is reaped
    and no process of its session lives.

    Parameters
    ----------
    pid_file
        Where the driver's Python process writes its pid.

    Raises
    ------
    LaunchError
        If `command` cannot be started at all.
    """
    with heard_signals() as signals:
        try:
            child = subprocess.Popen(
                list(command),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(
                f"cannot start {command[0]}: {error.strerror or error}; check SPARK_HOME"
            ) from error
        deadline = None if timeout_s is None else time.monotonic() + timeout_s + grace_s
        watch = _Watch(child, pid_file, signals, grace_s, deadline)
        try:
            return watch.until_gone()
        finally:
            _kill_session(child)


class _Watch:
    def __init__(
        self,
        child: subprocess.Popen[Any],
        pid_file: Path,
        signals: list[int],
        grace_s: float,
        deadline: float | None,
    ) -> None:
        self._child = child
        self._pid_file = pid_file
        self._signals = signals
        self._grace_s = grace_s
        self._backstop = None if deadline is None else deadline + BACKSTOP_S
        self._handled = 0
        self._interrupt_deadline: float | None = None

    def until_gone(self) -> SparkExit:
        timed_out = False
        while not self._ended():
            now = time.monotonic()
            if len(self._signals) > self._handled:
                self._handled += 1
                self._on_signal(self._signals[self._handled - 1], now)
            if self._interrupt_deadline is not None and now > self._interrupt_deadline:
                _kill_session(self._child)
            elif self._backstop is not None and now > self._backstop:
                timed_out = True
                _kill_session(self._child)
        first = signal.Signals(self._signals[0]).name if self._signals else None
        return SparkExit(self._child.returncode, self._pid_file.exists(), first, timed_out)

    def _ended(self) -> bool:
        try:
            self._child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _on_signal(self, signum: int, now: float) -> None:
        driver = self._driver_pid()
        if self._handled > 1 or driver is None:
            _kill_session(self._child)
            return
        self._interrupt_deadline = now + self._grace_s + INTERRUPT_EXTRA_S
        # A terminal that closed asks for the same as a scheduler; drivers listen for this one.
        _send(driver, signal.SIGTERM if signum == signal.SIGHUP else signum)

    def _driver_pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            # Not there, or not written to its end yet.
            return None
        return pid if _session_of(pid) == self._child.pid else None


@contextmanager
def raised_signals() -> Iterator[None]:
    """Raise InterruptedRunError in the main thread when a signal asks to end; elsewhere nothing."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        raise InterruptedRunError(f"interrupted by {name}", signal_name=name)

    with _handling(stop):
        yield


@contextmanager
def heard_signals() -> Iterator[list[int]]:
    """Collect the numbers of signals that ask to end, instead of ending.

    SIGHUP stays ignored under nohup. SIGINT does not in a script's background job: there shells
    ignore it for the terminal's sake, and one that is sent on purpose is meant.
    """
    heard: list[int] = []

    def hear(signum: int, _frame: FrameType | None) -> None:
        heard.append(signum)

    with _handling(hear):
        yield heard


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous: dict[signal.Signals, Any] = {}
    try:
        for each in _SIGNALS:
            if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
                previous[each] = signal.signal(each, handle)
    except ValueError:
        # Python allows handlers in the main thread only.
        previous.clear()
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def _kill_session(child: subprocess.Popen[Any]) -> None:
    """Kill and await every process of the child's session; Spark's Python daemon leaves its group.

    Bounded by `_SWEEP_S`; idempotent.
    """
    deadline = time.monotonic() + _SWEEP_S
    while members := _session_members(child.pid):
        for pid in members:
            _send(pid, signal.SIGKILL)
        child.poll()
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _session_members(session: int) -> list[int]:
    return [
        pid for pid in psutil.pids() if _session_of(pid) == session and not _is_zombie(pid, session)
    ]


def _is_zombie(pid: int, session: int) -> bool:
    try:
        # Our own child's zombie is reaped by poll; others' are their parents' to reap.
        return pid != session and psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _send(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return
