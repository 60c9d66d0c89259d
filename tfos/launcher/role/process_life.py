"""Live one life of a training process with it: begin, hear, watch, end, and say how it ended.

A process is started ahead of its life, imports TensorFlow and waits: as the first one while roles
still register, later as the standby that takes over without waiting for an import.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfos.account import home_directory
from tfos.errors import InfrastructureError, RendezvousError
from tfos.fault.drills.drills import HostDrill
from tfos.fault.failures.exits import failure_from_exit
from tfos.fault.failures.record import Cause, Failure, arrange_stacks, container_logs
from tfos.fault.processes.events import ControlMessage, Exited
from tfos.fault.processes.managed import ManagedProcess
from tfos.launcher.handover.messages import (
    Artifact,
    Beat,
    Begin,
    Ended,
    Exit,
    FromHost,
    FromProcess,
    Phase,
    Positions,
    PositionsWanted,
    Running,
    Saving,
    Stop,
    from_process,
    to_json,
)
from tfos.launcher.handover.training_spec import STACKS_FILE, STACKS_SIGNAL, TrainingSpec
from tfos.launcher.role.ports import describe_unreached, unreached
from tfos.launcher.role.watchdog import Watchdog
from tfos.progress import NOTICES_KEPT, Aim, Notice, Progress
from tfos.read_plan import FeedPosition
from tfos.registry.contract import Registry
from tfos.terminal import printable
from tfos.topology import Life, Role, TaskKey

__all__ = ["LifeReport", "TrainingLife", "WaitingProcess"]

log = logging.getLogger("tfos")

PROGRAM = "tfos.launcher.training.main"
"""The module that a training process runs."""
SHUTDOWN_LIMIT_S = 60.0
"""How long a process may live on after its outcome, in ``Job.shutdown``."""
_STACKS_WAIT_S = 1.0
_STACKS_CHARS = 32_000
_PROBE_S = 2.0
_POLL_S = 0.02
_LONGEST_TEMPORARY = 70
_SPEC_FILE, _OUTPUT_FILE, _TEMPORARY = "spec.json", "output.log", "tmp"
_OWN = re.compile("|".join(map(re.escape, (_SPEC_FILE, _OUTPUT_FILE, STACKS_FILE))) + "|tmp$|core")


class WaitingProcess:
    """A training process that has imported TensorFlow, or is about to, and waits to begin.

    It dies with the thread that made this object.

    Parameters
    ----------
    key
        The role it will play.
    arch
        The architecture it will play it in, as `load_framework` names it.
    environment
        Its whole environment.
    directory
        Its own working directory, made here and removed by `discard`.
    """

    def __init__(
        self, key: TaskKey, arch: str, environment: Mapping[str, str], directory: Path
    ) -> None:
        directory.mkdir(mode=0o700)
        (directory / _TEMPORARY).mkdir(mode=0o700)
        self.directory = directory
        self._handle: int | None = None
        self._silent = False
        self.managed = ManagedProcess(name=str(key), sink=self._show)
        try:
            self.managed.start(
                [sys.executable, "-m", PROGRAM, arch, key.role.value],
                # TensorFlow's tracing leaves files behind in a process that is ended.
                env=self._environment(environment),
                cwd=str(directory),
                log_path=str(directory / _OUTPUT_FILE),
            )
        except BaseException:
            self.discard()
            raise

    def _environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        temporary = self._temporary()
        # Libraries take a user without a home for one whose home is a directory called "~".
        home = {} if home_directory(environment) is not None else {"HOME": temporary}
        return {**environment, **home, "TMPDIR": temporary}

    def _show(self, line: str) -> None:
        if not self._silent:
            print(printable(line), file=sys.stderr, flush=True)

    def silence(self) -> None:
        """Show nothing more of its output: what it meets as it is ended is no news."""
        self._silent = True

    def _temporary(self) -> str:
        """Return a path of its directory for temporary files that leaves room for sockets' names.

        A socket's path has 107 characters at most, and a container's directory takes more: what
        makes sockets, as Python's multiprocessing does, goes by this process's handle of it.
        """
        temporary = self.directory / _TEMPORARY
        if len(str(temporary)) <= _LONGEST_TEMPORARY:
            return str(temporary)
        self._handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/{os.getpid()}/fd/{self._handle}"

    def files_of_job(self) -> list[str]:
        """Return the names of files and directories that ``train`` made in its working directory.

        They go with it: a relative path leads there. None of them is tfos's own, which are the
        spec, the output, the stacks and temporary files.
        """
        with suppress(OSError):
            return sorted(name for name in os.listdir(self.directory) if not _OWN.match(name))
        return []

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self.managed.running

    def discard(self, grace_s: float = 0.0) -> None:
        """End it if it runs, and remove its directory. Idempotent."""
        self.managed.stop(grace_s)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@dataclass
class LifeReport:
    """What a life has told so far; read by its host at any time.

    Parameters
    ----------
    failure
        Why it failed; None while it has not.
    done
        Whether it said that it ended well.
    result
        What ``train`` returned.
    progress
        Its last step, rows and metrics.
    read
        The position in ``train`` up to which every row has been used; None before the first.
    stepping_since
        When it took its first step or handed out its first rows, seconds since the epoch.
    saving
        Whether it writes a checkpoint now.
    aim
        What ends its training; None where unknown.
    phases, artifacts, notices
        As in `tfos.fault.failures.record.Outcome`.
    """

    failure: Failure | None = None
    done: bool = False
    result: Any = None
    progress: Progress = field(default_factory=Progress)
    read: FeedPosition | None = None
    stepping_since: float | None = None
    saving: bool = False
    aim: Aim | None = None
    phases: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


class TrainingLife:
    """One life. Every method belongs to the host's supervising thread.

    Parameters
    ----------
    life
        Whose, and which.
    process
        The process that lives it.
    spec
        What it is told.
    watchdog
        Judges its signs.
    positions
        Returns how far each worker has read, for the process to ask.
    drill
        Faults to cause on purpose.
    """

    def __init__(
        self,
        life: Life,
        process: WaitingProcess,
        spec: TrainingSpec,
        watchdog: Watchdog,
        positions: Callable[[], Mapping[int, FeedPosition]],
        drill: HostDrill,
    ) -> None:
        self.life = life
        self.report = LifeReport()
        self.spec = spec
        self._process = process
        self._watchdog = watchdog
        self._positions = positions
        self._drill = drill
        self._told = False
        self._kill_at: float | None = None
        self._ended_by_us = False

    def begin(self) -> None:
        """Give the process its spec; it starts to play its role."""
        path = self._process.directory / _SPEC_FILE
        try:
            self.spec.write(str(path))
        except OSError as error:
            raise InfrastructureError(
                f"{self.life} cannot be told what to play: {error.strerror or error} ({path}): "
                "make room there, or have TMPDIR name another directory on the executors"
            ) from error
        self.send(Begin(str(path), self._workers_but(frozenset())))

    def tell_done(self, done: Set[TaskKey]) -> None:
        """Tell it which roles of its generation have ended for good, as those it may wait for."""
        self.send(Running(self._workers_but(done)))

    def _workers_but(self, done: Set[TaskKey]) -> tuple[TaskKey, ...]:
        trainers = self.spec.facts.trainers
        return tuple(key for key in trainers if key.role is Role.WORKER and key not in done)

    @property
    def trainers(self) -> frozenset[TaskKey]:
        """The roles of its generation that run ``train``."""
        return frozenset(self.spec.facts.trainers)

    @property
    def begun(self) -> bool:
        """Whether the process has said that it read its spec."""
        return "begun" in self.report.phases

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.managed.pid

    def look(self, registry: Registry) -> None:
        """Cause what a drill wants now."""
        try:
            self._drill.look(registry, self.pid, self._exit_with)
        except RendezvousError as error:
            log.debug("the drill cannot see how far training is: %s", error)

    def _exit_with(self, code: int) -> None:
        self.send(Exit(code))

    def attend(self, timeout_s: float) -> bool:
        """Wait for its next sign, and act on it; return whether it still lives."""
        event = self._process.managed.next_event(timeout_s)
        if isinstance(event, Exited):
            self._on_exit(event)
            return False
        now = time.monotonic()
        if isinstance(event, ControlMessage):
            self._hear(event.body, now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._process.managed.stop(1.0)
        self._judge(now)
        return True

    def ask_to_stop(self, patience_s: float) -> None:
        """Tell it that the run ends; it is ended after `patience_s` seconds."""
        self._ended_by_us = True
        self._drill.reach("shutdown", self.pid, self._exit_with)
        if not self.spec.trains:
            self._process.silence()
        self.send(Stop())
        self._kill_at = time.monotonic() + patience_s

    def end(self, grace_s: float) -> None:
        """End it now: what it says from here on counts for nothing."""
        self._ended_by_us = True
        self._process.silence()
        self._process.managed.stop(grace_s)

    def close(self) -> None:
        """Make sure that nothing of the process is left."""
        if self.report.done and (names := self._process.files_of_job()):
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            log.warning(
                "%s wrote %s in its working directory, which is removed with it: write to absolute "
                "paths, or publish with ctx.export (--model-dir)",
                self.life.key,
                some,
            )
        self._process.discard()

    def send(self, message: FromHost) -> None:
        """Send it a message; one that ends has its exit as the next event, which tells more."""
        try:
            self._process.managed.send(to_json(message))
        except InfrastructureError as error:
            log.debug("%s did not receive %s: %s", self.life, message, error)

    def record(self, cause: Cause, message: str, **more: Any) -> Failure:
        """Describe a failure of this life as one seen now."""
        return Failure(
            **{
                "key": str(self.life.key),
                "cause": cause,
                "message": message,
                "time": time.time(),
                "host": socket.gethostname(),
                "pid": self.pid,
                "logs": container_logs(os.environ),
                "step": self.report.progress.step,
                **more,
            }
        )

    # -- signs ---------------------------------------------------------------------------------

    def _hear(self, body: Mapping[str, Any], now: float) -> None:
        try:
            message = from_process(body)
        except ValueError as error:
            log.warning("a message of %s was left out: %s", self.life, error)
        else:
            self._on_message(message, now)

    def _on_message(self, message: FromProcess, now: float) -> None:
        report = self.report
        match message:
            case Beat(read, reading):
                self._watchdog.hear(now)
                report.read = report.read if read is None else read
                if reading:
                    self._stepping()
            case Progress():
                self._watchdog.see_step(message.step, now)
                report.progress = message
                self._stepping()
            case Phase(name, at):
                self._on_phase(name, now)
                report.phases[name] = at
            case Aim():
                report.aim = message
            case Artifact(name, path):
                self._watchdog.see_work(now)
                report.artifacts[name] = path
            case Notice():
                report.notices = (*report.notices, message)[-NOTICES_KEPT:]
            case Saving(on):
                self._watchdog.see_work(now)
                report.saving = on
                if on:
                    # A small checkpoint is complete before the registry could say that it is
                    # written.
                    self._drill.reach("checkpoint", self.pid, self._exit_with)
            case PositionsWanted(number):
                self.send(Positions(number, self._positions()))
            case Ended():
                self._on_outcome(message, now)

    def _on_phase(self, name: str, now: float) -> None:
        if name == "connected":
            self._watchdog.see_connected(now)
        elif name == "begun" and self.spec.trains:
            self._watchdog.see_connecting(now)
        else:
            self._watchdog.see_work(now)
        if name == "begun":
            self._drill.reach("feed", self.pid, self._exit_with)

    def _stepping(self) -> None:
        if self.report.stepping_since is None:
            self.report.stepping_since = self.report.phases["stepping"] = time.time()

    def _on_outcome(self, ended: Ended, now: float) -> None:
        self._told = True
        self._drill.reach("shutdown", self.pid, self._exit_with)
        self.report.done = ended.failure is None and not self._ended_by_us
        self.report.result = ended.result
        if ended.failure is not None:
            self._keep(replace(ended.failure, step=self.report.progress.step))
        self._kill_at = now + SHUTDOWN_LIMIT_S

    def _judge(self, now: float) -> None:
        if self._told or self._ended_by_us:
            return
        complaint = self._watchdog.complaint(now)
        if complaint is None:
            return
        what, hint = complaint
        if self._watchdog.connects_too_long(now):
            endpoints = self.spec.facts.cluster.endpoints
            peers = {key: at for key, at in endpoints.items() if key != self.life.key}
            what += describe_unreached(peers, unreached(peers, _PROBE_S))
        stacks = self._stacks()
        lines = tuple(self._process.managed.last_lines)
        message = f"the training process stalled: {what}"
        self._keep(self.record(Cause.STALLED, message, stacks=stacks, last_lines=lines, hint=hint))
        self._process.managed.stop(0.0)

    def _stacks(self) -> str:
        """Have the process write its threads' stacks, even one that was stopped; "" if it cannot.

        The signal's handler is C: it needs neither Python's lock nor a thread that runs.
        """
        pid = self.pid
        path = self._process.directory / STACKS_FILE
        try:
            os.kill(pid, STACKS_SIGNAL)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return ""
        deadline = time.monotonic() + _STACKS_WAIT_S
        written = -1
        while time.monotonic() < deadline:
            size = path.stat().st_size if path.exists() else 0
            if size == written and size > 0:
                break
            written = size
            time.sleep(_POLL_S)
        return self._stacks_written()

    def _stacks_written(self) -> str:
        path = self._process.directory / STACKS_FILE
        try:
            return arrange_stacks(path.read_text(errors="replace"))[:_STACKS_CHARS]
        except OSError:
            return ""

    # -- the end -------------------------------------------------------------------------------

    def _on_exit(self, exited: Exited) -> None:
        failure = self.report.failure
        if failure is not None and not failure.last_lines:
            self.report.failure = replace(failure, last_lines=tuple(exited.last_lines))
        if self._told or self._ended_by_us or failure is not None:
            return
        # A role that runs no code of the user's cannot fail by it, whatever its exit code.
        cause = None if self.spec.trains else Cause.PROCESS_DEATH
        step = self.report.progress.step
        failure = failure_from_exit(str(self.life.key), exited, step=step, cause=cause)
        self._keep(replace(failure, stacks=self._stacks_written()))

    def _keep(self, failure: Failure) -> None:
        if self.report.failure is None:
            self.report.failure = failure
