"""Supervise one role's training process: start it, hear it, stop it, and say how it ended.

Everything that happens to the process comes together in one loop in one thread: its messages, its
end, the driver's stop, the loss of the registry, a failure of the feed.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfos.config import JobConfig
from tfos.errors import InfrastructureError, RendezvousError
from tfos.fault.failure import Cause, Failure, Outcome
from tfos.fault.supervisor import ControlMessage, Exited, Supervisor, failure_from_exit
from tfos.frameworks.contract import load_framework
from tfos.launcher.training_spec import TrainingSpec
from tfos.registry.contract import Connection, Registry, StopNotice
from tfos.topology import Role, TaskKey

__all__ = ["ProcessPlan", "Supervision"]

log = logging.getLogger("tfos")

POLL_S = 0.1
PROGRESS_EVERY_S = 1.0
SHUTDOWN_LIMIT_S = 60.0
"""How long a process may live on after its outcome, in ``Job.shutdown``."""


@dataclass(frozen=True)
class ProcessPlan:
    """What to start: the spec, where its files go, and whether it must hear of its peers."""

    spec: TrainingSpec
    directory: Path
    watch_peers: bool


class Supervision:
    """The life of one training process. `run` blocks; `fail` may be called from other threads."""

    def __init__(self, config: JobConfig, key: TaskKey, registry: Registry) -> None:
        self._config = config
        self._key = key
        self._registry = registry
        self._generation = 0
        self._connection = Connection.CONNECTED
        self._notices: queue.SimpleQueue[StopNotice | Failure | frozenset[TaskKey]]
        self._notices = queue.SimpleQueue()
        self._told: dict[str, Any] | None = None
        self._failure: Failure | None = None
        self._progress: dict[str, Any] = {"step": -1, "rows": 0, "metrics": {}}
        self._phases: dict[str, float] = {}
        self._artifacts: dict[str, str] = {}
        self._kill_at: float | None = None
        self._stopping = False
        self._pid = 0
        self._next_progress = 0.0

    def fail(self, failure: Failure) -> None:
        """End the process because something around it failed. Thread-safe; the first one counts."""
        self._notices.put(failure)
        if self._failure is None:
            self._failure = failure

    def mark(self, phase: str) -> None:
        """Note that the role enters a phase now. Thread-safe."""
        self._phases[phase] = time.time()

    def run(self, plan: ProcessPlan) -> None:
        """Start the process and stay with it to its end; when this returns it is reaped.

        Raises
        ------
        InfrastructureError
            If it cannot be started.
        """
        self._generation = plan.spec.facts.generation
        subscriptions = [
            self._registry.watch_stop(self._notices.put),
            self._registry.watch_connection(self._on_connection),
        ]
        if plan.watch_peers:
            subscriptions.append(self._registry.watch_outcomes(self._generation, self._notices.put))
        supervisor = self._start(plan)
        try:
            self._attend(supervisor, plan)
        finally:
            supervisor.stop(self._config.supervision.grace_s)
            for unsubscribe in subscriptions:
                unsubscribe()

    def outcome(self, rows: Mapping[str, int]) -> Outcome:
        """Return how the role ended. After `run`."""
        told = self._told or {"failure": None, "result": None}
        return Outcome(
            key=self._key,
            failure=self._failure,
            result=told["result"],
            metrics=self._progress["metrics"],
            step=self._progress["step"],
            rows=rows,
            phases=self._phases,
            artifacts=self._artifacts,
        )

    def publish(self, outcome: Outcome) -> None:
        """Write the outcome to the registry if it can be reached; Spark carries it as well.

        Before the first generation it goes to number 0, which the driver watches too.
        """
        if self._connection is not Connection.CONNECTED:
            return
        try:
            self._registry.publish_outcome(self._generation, self._key, outcome.to_json())
        except RendezvousError as error:
            log.warning("the outcome of %s goes by Spark alone: %s", self._key, error)

    # -- start ---------------------------------------------------------------------------------

    def _start(self, plan: ProcessPlan) -> Supervisor:
        spec_file = plan.directory / f"spec-{self._generation}.json"
        plan.spec.write(str(spec_file))
        resources = getattr(self._config.roles, self._key.role.value)
        environment = {
            **load_framework(plan.spec.arch).environment(self._key, resources),
            **os.environ,
            # The host's own import path, Spark's shipped files included.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # TensorFlow's tracing leaves files behind in a process that is ended.
            "TMPDIR": str(plan.directory),
        }
        supervisor = Supervisor(
            name=str(self._key),
            sink=lambda line: print(line, file=sys.stderr, flush=True),
        )
        supervisor.start(
            [sys.executable, "-m", "tfos.launcher.training_process", str(spec_file)],
            env=environment,
            cwd=str(plan.directory),
            log_path=str(plan.directory / f"output-{self._generation}.log"),
        )
        self._pid = supervisor.pid
        return supervisor

    # -- the loop ------------------------------------------------------------------------------

    def _attend(self, supervisor: Supervisor, plan: ProcessPlan) -> None:
        while True:
            event = supervisor.next_event(POLL_S)
            if isinstance(event, Exited):
                self._on_exit(event)
                return
            if isinstance(event, ControlMessage):
                self._on_message(event.body)
            self._on_notices(supervisor, plan)
            self._publish_progress()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                supervisor.stop(self._config.supervision.grace_s / 2)
                self._kill_at = None

    def _on_message(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "progress":
            self._progress = {k: message[k] for k in ("step", "rows", "metrics")}
        elif kind == "phase":
            self._phases[message["name"]] = message["time"]
        elif kind == "artifact":
            self._artifacts[message["name"]] = message["path"]
        elif kind == "outcome":
            self._told = dict(message)
            if message["failure"] is not None:
                self._keep(self._failure_told(message["failure"]))
            self._kill_at = time.monotonic() + SHUTDOWN_LIMIT_S

    def _on_notices(self, supervisor: Supervisor, plan: ProcessPlan) -> None:
        while not self._notices.empty():
            notice = self._notices.get()
            if isinstance(notice, frozenset):
                trainers = plan.spec.facts.trainers
                running = [str(k) for k in trainers if k.role is Role.WORKER and k not in notice]
                self._send(supervisor, {"type": "running", "workers": running})
            elif not self._stopping:
                self._stopping = True
                self._send(supervisor, {"type": "stop"})
                patience = self._config.supervision.grace_s / 2
                self._kill_at = time.monotonic() + patience

    def _send(self, supervisor: Supervisor, message: Mapping[str, Any]) -> None:
        try:
            supervisor.send(message)
        except InfrastructureError as error:
            # It is ending: its exit is the next event, and tells more.
            log.debug("%s did not hear %s: %s", self._key, message["type"], error)

    def _on_connection(self, connection: Connection) -> None:
        self._connection = connection
        if connection is Connection.LOST:
            where = self._config.registry.zookeeper or "embedded"
            self.fail(
                self._record(
                    Cause.INFRASTRUCTURE,
                    f"{self._key} lost its ZooKeeper session ({where})",
                    hint="ZooKeeper died, or this host could not reach it for "
                    f"registry.session_timeout_s = {self._config.registry.session_timeout_s:g} s",
                )
            )

    def _publish_progress(self) -> None:
        now = time.monotonic()
        if now < self._next_progress or self._connection is not Connection.CONNECTED:
            return
        self._next_progress = now + PROGRESS_EVERY_S
        if self._progress["step"] < 0:
            return
        try:
            self._registry.publish_progress(self._key, self._progress)
        except RendezvousError as error:
            log.debug("progress of %s not published: %s", self._key, error)

    # -- the end -------------------------------------------------------------------------------

    def _on_exit(self, exited: Exited) -> None:
        if self._told is not None:
            if self._failure is not None and not self._failure.last_lines:
                lines = tuple(exited.last_lines)
                self._failure = Failure(**{**self._failure.__dict__, "last_lines": lines})
            return
        if self._stopping:
            return
        failure = failure_from_exit(str(self._key), exited, step=self._progress["step"])
        self._keep(failure)

    def _keep(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure

    def _failure_told(self, told: Mapping[str, Any]) -> Failure:
        return self._record(
            Cause(told["cause"]),
            told["message"],
            hint=told["hint"],
            exit_code=told["exit_code"],
            traceback=told["traceback"],
        )

    def _record(self, cause: Cause, message: str, **more: Any) -> Failure:
        return Failure(
            **{
                "key": str(self._key),
                "cause": cause,
                "message": message,
                "time": time.time(),
                "host": socket.gethostname(),
                "pid": self._pid,
                "step": self._progress["step"],
                **more,
            }
        )
