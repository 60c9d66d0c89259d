"""Start, watch and stop one training process at a time, in the role host.

The training process begins with `guard.install()` and `ControlChannel.from_environment()`. It never
outlives its supervisor, and it never takes the role host down with it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from tfos.errors import LaunchError
from tfos.fault.failures.error_text import last_error
from tfos.fault.failures.exhaustion import exhausted
from tfos.fault.failures.record import Cause, Failure, container_logs, describe_exit, hint_for_exit
from tfos.fault.processes.bounded_log import BoundedLog
from tfos.fault.processes.child import ChildProcess
from tfos.fault.processes.events import ControlMessage, Exited, ProcessEvent
from tfos.fault.processes.output import OutputLimits, OutputReader

__all__ = ["ControlMessage", "Exited", "ProcessEvent", "Supervisor", "failure_from_exit"]


class Supervisor:
    """Supervise the training processes of one role, one after the other.

    Runs in the role host; any thread may call any method. As a context manager it stops what still
    runs, without grace, at the end.

    Parameters
    ----------
    name
        The role, as text (``worker-3``): begins every forwarded line and is named in errors.
    sink
        Called with each forwarded line of output, ``[name] `` first and no line end, from a thread
        of the supervisor. It should not block: a process that prints waits for it.
    limits
        How much output is kept and forwarded.
    """

    def __init__(
        self,
        name: str,
        sink: Callable[[str], None],
        limits: OutputLimits | None = None,
    ) -> None:
        self._name = name
        self._sink = sink
        self._limits = OutputLimits() if limits is None else limits
        self._starting = threading.Lock()
        self._child: ChildProcess | None = None

    @property
    def running(self) -> bool:
        """Whether a training process lives, or its end is still being cleared up."""
        child = self._child
        return child is not None and not child.done

    @property
    def pid(self) -> int:
        """The latest training process's id, which is its group's too; 0 before the first."""
        child = self._child
        return 0 if child is None else child.pid

    @property
    def last_lines(self) -> Sequence[str]:
        """The last lines the latest training process wrote so far, oldest first."""
        child = self._child
        return () if child is None else child.last_lines

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: str,
        cwd: str | None = None,
    ) -> int:
        """Start a training process in a session and group of its own.

        Returns once the program runs (milliseconds; at most a minute). Its standard input is empty;
        output and errors go to `log_path`, to the sink and to `last_lines`. Events of an earlier
        process that were not taken are gone.

        Parameters
        ----------
        argv
            Program and arguments; no shell.
        env
            The whole environment. ``PYTHONUNBUFFERED=1`` is added unless it says otherwise, so that
            the last words of a killed process are not lost, and the ``TFOS_*`` variables of the
            guard and the control channel.
        log_path
            The log file: replaced if it exists, readable by its owner only, of bounded size.
        cwd
            Working directory; the role host's by default.

        Returns
        -------
        int
            Its process id.

        Raises
        ------
        LaunchError
            If it cannot be started, or one is running already.
        """
        with self._starting:
            if self.running:
                raise LaunchError(
                    f"{self._name} already has a training process (pid {self.pid}): stop it before "
                    "starting the next"
                )
            try:
                log = BoundedLog(log_path, self._limits.head_bytes, self._limits.tail_bytes)
            except OSError as error:
                raise LaunchError(f"the log of {self._name} cannot be written: {error}") from error
            child = ChildProcess(
                self._name, OutputReader(self._name, log, self._sink, self._limits)
            )
            self._child = child
            child.start(argv, env, cwd)
            return child.pid

    def next_event(self, timeout_s: float) -> ProcessEvent | None:
        """Wait up to `timeout_s` seconds for the next event of the latest process.

        Every `ControlMessage` comes in order, then `Exited` once: by then the process is reaped,
        its group gone and its output read to the end (2 s at most, when something that left the
        group holds it open). None when nothing happened in time, and always after `Exited`.

        Raises
        ------
        RuntimeError
            If no process was ever started.
        """
        if self._child is None:
            raise RuntimeError(f"{self._name}: next_event before start")
        return self._child.take_event(timeout_s)

    def send(self, message: Mapping[str, Any], *, droppable: bool = False) -> bool:
        """Send the training process a control message; False if a droppable one was given up.

        Blocks for at most 10 s when the process does not read; a droppable one does not block.

        Raises
        ------
        InfrastructureError
            If there is no process any more, it closed its channel, it does not read, or the message
            is over 1 MiB.
        TypeError
            If `message` is not JSON.
        """
        if self._child is None:
            raise RuntimeError(f"{self._name}: send before start")
        return self._child.send(message, droppable=droppable)

    def stop(self, grace_s: float) -> int | None:
        """End the training process: SIGTERM to its group, `grace_s` seconds, then SIGKILL.

        When it returns, the process is reaped and no process of its group runs. What left the group
        by a session of its own is out of reach. Idempotent: after an end, whoever caused it, it
        returns at once. Blocks for at most the grace and 10 s. A polite ``stop`` message beforehand
        is the caller's affair. The `Exited` event stays to be taken.

        Returns
        -------
        int or None
            The return code as `subprocess` gives it; None if none was ever started.

        Raises
        ------
        InfrastructureError
            If it outlives SIGKILL, which only the kernel can cause.
        """
        # Waits for a start in progress, so that none slips through behind a stop.
        with self._starting:
            child = self._child
        if child is None or not child.pid:
            return None
        return child.stop(grace_s)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(0.0)


def failure_from_exit(
    key: str, exited: Exited, *, host: str = "", step: int = -1, cause: Cause | None = None
) -> Failure:
    """Describe the end of a training process that did not say itself why it failed.

    Parameters
    ----------
    key
        The role, as text.
    exited
        How it ended.
    host
        Where.
    step
        The last step it reported, -1 for none.
    cause
        Whose failure it was. By default: the infrastructure's where the machine had run out of
        something, the process's death for a signal, the user's code for an exit code.
    """
    exit_code, signal_name, words = describe_exit(exited.returncode)
    # One that something else killed may have told of a full disk before, and have gone on.
    ended_itself = 0 < exited.returncode < 128 or exited.returncode == -signal.SIGABRT
    scarce = exhausted(exited.last_lines) if ended_itself else None
    if cause is None and scarce is not None:
        cause = Cause.INFRASTRUCTURE
    if cause is None:
        # Shells and launchers pass a signal on as 128 and its number.
        died = signal_name is not None or exited.returncode > 128
        cause = Cause.PROCESS_DEATH if died else Cause.USER_CODE
    if exited.returncode == 0:
        words += " before it reported how training went"
    elif last_words := last_error(exited.last_lines):
        words += f": {last_words}"
    return Failure(
        key=key,
        cause=cause,
        message=f"the training process {words}",
        time=exited.time,
        host=host or os.uname().nodename,
        pid=exited.pid,
        exit_code=exit_code,
        signal_name=signal_name,
        step=step,
        last_lines=tuple(exited.last_lines),
        hint=scarce or hint_for_exit(exited.returncode),
        logs=container_logs(os.environ),
        lasting=scarce is not None,
    )
