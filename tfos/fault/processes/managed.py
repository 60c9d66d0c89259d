"""Own one training process from fork to reaped: its group, its channel, its output.

The training process begins with `guard.install()` and `ControlChannel.from_environment()`. It never
outlives the process that manages it, and never takes that down with it.

Three threads serve each process. The *attendant* forks it, waits for its end, kills what is left of
its group and reaps it; the parent-death signal follows the thread that forked, so this one lives
exactly as long as its process. The other two read its output and its control channel.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

from tfos.errors import InfrastructureError, LaunchError
from tfos.fault.processes.bounded_log import BoundedLog
from tfos.fault.processes.channel import CONTROL_FD_VARIABLE, ControlChannel
from tfos.fault.processes.events import ControlMessage, Exited, Mailbox, ProcessEvent
from tfos.fault.processes.guard import LIFELINE_FD_VARIABLE, SUPERVISOR_PID_VARIABLE
from tfos.fault.processes.output import OutputLimits, OutputReader
from tfos.fault.processes.proc_stat import ENDED, ProcessStat

__all__ = ["ManagedProcess"]

_logger = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 60.0
_KILL_TIMEOUT_S: Final = 10.0
_DRAIN_TIMEOUT_S: Final = 2.0
_GROUP_TIMEOUT_S: Final = 2.0
_GROUP_POLL_S: Final = 0.002
_RECEIVE_TIMEOUT_S: Final = 60.0
_UNKNOWN_RETURNCODE: Final = 255
_MALFORMED_TOLD: Final = 5


class ManagedProcess:
    """One training process, in the role host that owns it.

    Any thread may call any method. As a context manager it ends the process, without grace.

    Parameters
    ----------
    name
        The role, as text (``worker-3``): begins every forwarded line and is named in errors.
    sink
        Called with each forwarded line of output, ``[name] `` first and no line end, from a thread
        of this object. It should not block: a process that prints waits for it.
    limits
        How much output is kept and forwarded.
    """

    def __init__(
        self, name: str, sink: Callable[[str], None], limits: OutputLimits | None = None
    ) -> None:
        self.name = name
        self.pid = 0
        """Its id, which is its group's too; 0 before it was started."""
        self._sink = sink
        self._limits = OutputLimits() if limits is None else limits
        self._starting = threading.Lock()
        self._mailbox = Mailbox()
        self._output: OutputReader | None = None
        self._channel: ControlChannel | None = None
        self._done = threading.Event()
        # Guards signals: once reaped, the number of its group may belong to somebody else.
        self._reaping = threading.Lock()
        self._returncode: int | None = None
        self._ended_at = 0.0

    @property
    def running(self) -> bool:
        """Whether it lives, or its end is still being cleared up."""
        return self._output is not None and not self._done.is_set()

    @property
    def last_lines(self) -> Sequence[str]:
        """The last lines it wrote so far, oldest first."""
        return () if self._output is None else self._output.last_lines

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: str,
        cwd: str | None = None,
    ) -> int:
        """Start it, once, in a session and group of its own.

        Returns once the program runs (milliseconds; at most a minute). Its standard input is empty;
        output and errors go to `log_path`, to the sink and to `last_lines`.

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
            If it cannot be started, or was started before.
        """
        with self._starting:
            if self._output is not None:
                raise LaunchError(f"{self.name} was given its training process already")
            try:
                log = BoundedLog(log_path, self._limits.head_bytes, self._limits.tail_bytes)
            except OSError as error:
                raise LaunchError(f"the log of {self.name} cannot be written: {error}") from error
            self._output = OutputReader(self.name, log, self._sink, self._limits)
            self._start(self._output, argv, env, cwd)
            return self.pid

    def next_event(self, timeout_s: float) -> ProcessEvent | None:
        """Wait up to `timeout_s` seconds for the next event.

        Every `ControlMessage` comes in order, then `Exited` once: by then the process is reaped,
        its group gone and its output read to the end (2 s at most, when something that left the
        group holds it open). None when nothing happened in time, and always after `Exited`.
        """
        event = self._mailbox.take(timeout_s)
        if isinstance(event, Exited):
            # The attendant's next statement: once the exit is seen, what is left may be looked at.
            self._done.wait(_DRAIN_TIMEOUT_S)
        return event

    def send(self, message: Mapping[str, Any], *, droppable: bool = False) -> bool:
        """Send it a control message; False if a droppable one was given up.

        Blocks for at most 10 s when the process does not read; a droppable one does not block.

        Raises
        ------
        InfrastructureError
            If there is no process any more, it closed its channel, it does not read, or the message
            is over 1 MiB.
        TypeError
            If `message` is not JSON.
        """
        channel = self._channel
        if channel is None or self._done.is_set():
            raise InfrastructureError(
                f"a control message to {self.name} was not sent: its training process does not run"
            )
        return channel.send(message, droppable=droppable)

    def stop(self, grace_s: float) -> int | None:
        """End it: SIGTERM to its group, `grace_s` seconds, then SIGKILL.

        When it returns, the process is reaped and no process of its group runs. What left the group
        by a session of its own is out of reach. Idempotent: after an end, whatever caused it, it
        returns at once. Blocks for at most the grace and 10 s. A polite ``stop`` message beforehand
        is the caller's affair. The `Exited` event stays to be taken.

        Returns
        -------
        int or None
            The return code as `subprocess` gives it; None if it was never started.

        Raises
        ------
        InfrastructureError
            If it outlives SIGKILL, which only the kernel can cause.
        """
        # Waits for a start in progress, so that none slips through behind a stop.
        with self._starting:
            if not self.pid:
                return None
        self._signal_group(signal.SIGTERM)
        if not self._done.wait(grace_s):
            self._signal_group(signal.SIGKILL)
            if not self._done.wait(_KILL_TIMEOUT_S):
                raise InfrastructureError(
                    f"the training process of {self.name} (pid {self.pid}) outlived SIGKILL for "
                    f"{_KILL_TIMEOUT_S:g} s: it waits in the kernel, most often for a disk or a GPU"
                )
        # Set before `_done`, whatever happened.
        return _UNKNOWN_RETURNCODE if self._returncode is None else self._returncode

    def __enter__(self) -> ManagedProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(0.0)

    def _start(
        self, output: OutputReader, argv: Sequence[str], env: Mapping[str, str], cwd: str | None
    ) -> None:
        started: Future[None] = Future()
        threading.Thread(
            target=self._attend,
            args=(started, output, list(argv), dict(env), cwd),
            name=f"tfos-attendant-{self.name}",
            daemon=True,
        ).start()
        if not wait([started], _START_TIMEOUT_S).done and started.cancel():
            raise LaunchError(
                f"the training process of {self.name} was not started within "
                f"{_START_TIMEOUT_S:g} s: the host or the disk of {argv[0]!r} does not answer"
            )
        try:
            started.result()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise LaunchError(
                f"the training process of {self.name} could not be started: {error} "
                f"(command {argv[0]!r}, directory {cwd or os.getcwd()!r})"
            ) from error

    def _signal_group(self, number: signal.Signals) -> None:
        with self._reaping:
            if self._returncode is None:
                try:
                    os.killpg(self.pid, number)
                except PermissionError as error:
                    raise InfrastructureError(
                        f"{number.name} to {self.name} (pid {self.pid}) was refused: {error}; it "
                        "runs as another user"
                    ) from error

    def _attend(
        self,
        started: Future[None],
        output: OutputReader,
        argv: list[str],
        env: dict[str, str],
        cwd: str | None,
    ) -> None:
        held = ExitStack()
        try:
            popen, output_fd, stop_fd = self._spawn(held, argv, env, cwd)
        except BaseException as error:
            held.close()
            output.finish()
            self._done.set()
            if started.set_running_or_notify_cancel():
                started.set_exception(error)
            return
        if started.set_running_or_notify_cancel():
            started.set_result(None)
        else:  # nobody waits for it any more
            self._signal_group(signal.SIGKILL)
        try:
            self._serve(held, popen, output, output_fd, stop_fd)
        except Exception:
            _logger.exception("supervising %s (pid %d) failed: it is killed", self.name, self.pid)
            self._signal_group(signal.SIGKILL)
            self._reap(popen)
        finally:
            held.close()
            returncode = _UNKNOWN_RETURNCODE if self._returncode is None else self._returncode
            ended_at = self._ended_at or time.time()
            self._mailbox.put_exit(Exited(self.pid, returncode, ended_at, output.last_lines))
            self._done.set()

    def _spawn(
        self, held: ExitStack, argv: list[str], env: dict[str, str], cwd: str | None
    ) -> tuple[subprocess.Popen[bytes], int, int]:
        with ExitStack() as theirs, ExitStack() as opened:
            ours, control = socket.socketpair()
            theirs.enter_context(control)
            channel = ControlChannel(ours)
            opened.callback(channel.close)
            # Every pipe end is close-on-exec; only pass_fds reaches the new program.
            lifeline, lifeline_held = os.pipe()
            theirs.callback(os.close, lifeline)
            opened.callback(os.close, lifeline_held)
            output_fd, stdout = os.pipe()
            theirs.callback(os.close, stdout)
            opened.callback(os.close, output_fd)
            stop_fd, stop_held = os.pipe()
            opened.callback(os.close, stop_fd)
            opened.callback(os.close, stop_held)
            own = {
                CONTROL_FD_VARIABLE: str(control.fileno()),
                LIFELINE_FD_VARIABLE: str(lifeline),
                SUPERVISOR_PID_VARIABLE: str(os.getpid()),
            }
            popen = subprocess.Popen(
                argv,
                env={"PYTHONUNBUFFERED": "1", **env, **own},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout,
                pass_fds=(control.fileno(), lifeline),
                start_new_session=True,
            )
            self.pid, self._channel = popen.pid, channel
            opened.pop_all()
            held.callback(channel.close)
            held.callback(os.close, lifeline_held)
            held.callback(os.close, stop_held)
        return popen, output_fd, stop_fd

    def _serve(
        self,
        held: ExitStack,
        popen: subprocess.Popen[bytes],
        output: OutputReader,
        output_fd: int,
        stop_fd: int,
    ) -> None:
        reading = self._thread("output", output.run, output_fd, stop_fd)
        control = self._thread("control", self._receive, self._channel)
        self._reap(popen)
        _await_group_end(self.name, popen.pid)
        self._mailbox.lift_bound()
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        for thread in (reading, control):
            thread.join(max(0.0, deadline - time.monotonic()))
        if reading.is_alive():
            _logger.warning(
                "output of %s (pid %d) is held open by a process that left its group; "
                "reading ends here",
                self.name,
                self.pid,
            )
        # Closes the stop pipe and the channel: whatever thread is left ends by that.
        held.close()
        reading.join(_DRAIN_TIMEOUT_S)
        control.join(_DRAIN_TIMEOUT_S)

    def _reap(self, popen: subprocess.Popen[bytes]) -> None:
        """Wait for the end without a bound, kill what is left of the group, reap. Idempotent."""
        known = True
        try:
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            known = self._returncode is not None
            if not known:
                _logger.error(
                    "how %s (pid %d) ended is unknown: it was reaped by somebody else",
                    self.name,
                    self.pid,
                )
        self._ended_at = self._ended_at or time.time()
        # Not reaped yet, so the group's number is still its own: sweep what it left behind.
        self._sweep(popen.pid)
        with self._reaping:
            returncode = popen.wait()
            self._returncode = returncode if known else _UNKNOWN_RETURNCODE

    def _sweep(self, group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError as error:
            _logger.warning("what %s left behind could not be killed: %s", self.name, error)

    def _receive(self, channel: ControlChannel) -> None:
        malformed = 0
        while True:
            try:
                message = channel.receive(_RECEIVE_TIMEOUT_S)
            except EOFError:
                return
            except InfrastructureError as error:
                malformed += 1
                if malformed <= _MALFORMED_TOLD:
                    _logger.warning("%s (pid %d): %s", self.name, self.pid, error)
                continue
            if message is not None and not self._mailbox.put_message(ControlMessage(message)):
                return

    def _thread(self, what: str, run: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(
            target=run, args=args, name=f"tfos-{what}-{self.name}", daemon=True
        )
        thread.start()
        return thread


def _await_group_end(name: str, group: int) -> None:
    """Wait until no process of a killed group runs; bounded, with a warning past the bound."""
    deadline = time.monotonic() + _GROUP_TIMEOUT_S
    while _group_runs(group):
        if time.monotonic() >= deadline:
            _logger.warning("process group %d of %s outlived SIGKILL", group, name)
            return
        time.sleep(_GROUP_POLL_S)


def _group_runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Zombies count for killpg, and some containers' first process never reaps them.
    stats = (ProcessStat.of(int(pid)) for pid in os.listdir("/proc") if pid.isdigit())
    return any(stat and stat.group == group and stat.state not in ENDED for stat in stats)
