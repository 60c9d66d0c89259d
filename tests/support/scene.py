"""A run in one process: all of tfos between Spark, ZooKeeper and TensorFlow, and none of these.

The controller and every role host are the real ones, in threads, over a registry in memory;
training processes are real processes of a small program (`support.acting_process`). So a fault at
any point takes a second, and what the driver and the hosts make of it together is seen for real.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from support import acting_process
from support.waiting import wait_for
from tfos.config import JobConfig
from tfos.environments.versions import describe_here
from tfos.fault.drills import drills
from tfos.fault.failures.record import Failure, Outcome
from tfos.fault.failures.restart_policy import IncidentRecord
from tfos.frameworks.contract import load_framework
from tfos.launcher.driver import controller as controller_module
from tfos.launcher.driver import lost_hosts
from tfos.launcher.driver.controller import Controller
from tfos.launcher.driver.role_groups import GroupReport
from tfos.launcher.driver.state import RunState
from tfos.launcher.driver.task_attempts import LostAttempt
from tfos.launcher.role import host as role_host
from tfos.launcher.role import process_life
from tfos.launcher.role import progress as role_progress
from tfos.launcher.role.host import RoleHost, RoleTask
from tfos.registry.contract import Registry
from tfos.registry.memory import InMemoryRun
from tfos.topology import Endpoint, RoleSpec, TaskKey

__all__ = ["Scene", "quick"]

BOUND_S = 30.0
HEARTBEAT_TIMEOUT_S = 2.0
"""For what is stopped, and there alone: on a busy machine healthy processes pause as well."""


@contextmanager
def quick(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[None]:
    """Have training processes act, and everything that waits wait for as short as it can."""
    with monkeypatch.context() as patched:
        patched.setattr(process_life, "PROGRAM", acting_process.__name__)
        patched.setattr(process_life, "SHUTDOWN_LIMIT_S", 1.0)
        patched.setattr(process_life, "_STACKS_WAIT_S", 0.1)
        patched.setattr(drills, "LOOK_EVERY_S", 0.01)
        patched.setattr(role_progress, "EVERY_S", 0.0)
        patched.setattr(controller_module, "TICK_S", 0.02)
        patched.setattr(controller_module, "PEER_WITHIN_S", 0.2)
        patched.setattr(lost_hosts, "ASK_EVERY_S", 0.02)
        # It forks, which a process of many threads must not; nobody kills role hosts here.
        patched.setattr(role_host, "removed_at_end", lambda directories: nullcontext())
        patched.setattr(tempfile, "tempdir", str(directory))
        yield


class _Address:
    """Where the registry in memory is."""

    first = Endpoint("127.0.0.1", 1)

    def __init__(self, run: InMemoryRun) -> None:
        self.connect: Callable[[], Registry] = run.connect


class _Task:
    """What Spark tells a task of itself."""

    def __init__(self, index: int, task: int) -> None:
        self.partitionId = lambda: index
        self.taskAttemptId = lambda: task
        self.attemptNumber = lambda: 0
        self.getLocalProperty = lambda name: None


class _Group:
    """A role's Spark job: every task a thread. Its role hosts do not fail."""

    preparing = False

    def __init__(self, spec: RoleSpec, host: RoleHost, config: JobConfig, first_task: int) -> None:
        self.spec = spec
        self._host = host
        self._config = config
        self._first_task = first_task
        self._threads: list[threading.Thread] = []

    def start(self, on_end: Callable[[GroupReport], None]) -> None:
        ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

        def play(key: TaskKey) -> None:
            task = _Task(key.index, self._first_task + key.index)
            ended.put(RoleTask(self._host, self._config, key, task).play(iter(())))  # type: ignore[arg-type]

        def collect() -> None:
            outcomes = [ended.get() for _ in self.spec.keys]
            on_end(GroupReport(self.spec.role, tuple(outcomes), None))

        self._threads = [threading.Thread(target=play, args=(key,)) for key in self.spec.keys]
        self._threads.append(threading.Thread(target=collect))
        for thread in self._threads:
            thread.start()

    def lost_attempts(self) -> tuple[LostAttempt, ...]:
        return ()

    def task_failure(self, index: int, task: int) -> Failure | None:
        return None

    def withdraw(self) -> None:
        pass

    def join(self, timeout_s: float) -> bool:
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    # None of these is asked for as long as hosts live and end in time.

    def resubmit(self, on_end: Callable[[GroupReport], None]) -> int:
        raise AssertionError(f"the {self.spec.role} tasks were submitted again")

    def kill_task(self, task: int) -> None:
        raise AssertionError(f"task {task} of the {self.spec.role}s was killed")

    def cancel(self) -> None:
        raise AssertionError(f"the {self.spec.role} tasks were cancelled")


class Scene:
    """One run, played to its end.

    Parameters
    ----------
    directory
        Empty; where the processes keep what they did.
    arch
        Which roles there are: 2 workers and 1 parameter server, where it has them.
    faults
        As ``--inject`` has them.

    Attributes
    ----------
    state
        The controller's last.
    incidents
        As in the run's record.
    """

    def __init__(self, directory: Path, arch: str, faults: Sequence[str] = ()) -> None:
        self._state = directory / "state"
        self._state.mkdir()
        supervision = {"standby": False, "inject": list(faults)}
        if any(fault.startswith("stop:") for fault in faults):
            supervision["heartbeat_timeout_s"] = HEARTBEAT_TIMEOUT_S
        self._config = JobConfig.model_validate(
            {"arch": arch, "params": {"state": str(self._state)}, "supervision": supervision}
        )
        self._framework = load_framework(arch)
        self.specs = self._framework.roles(self._config.roles)
        self._play()

    def _play(self) -> None:
        run = InMemoryRun()
        driver = run.connect()
        driver.attend()
        groups = self._groups(run)
        controller = Controller(
            self._config,
            driver,
            groups,  # type: ignore[arg-type]
            deadline=None,
            explain_missing=lambda keys: "nobody knows",
        )
        ended: queue.SimpleQueue[RunState] = queue.SimpleQueue()
        thread = threading.Thread(target=lambda: ended.put(controller.run()))
        others = set(psutil.Process().children(recursive=True))
        thread.start()
        try:
            self.state = ended.get(timeout=BOUND_S)
        finally:
            controller.give_up("the scene took too long")
            thread.join(BOUND_S)
            assert all(group.join(BOUND_S) for group in groups)
            driver.close()
        self.incidents: list[IncidentRecord] = list(controller.incidents)
        left = set(psutil.Process().children(recursive=True)) - others
        wait_for(lambda: not any(process.is_running() for process in left), BOUND_S)

    def _groups(self, run: InMemoryRun) -> list[_Group]:
        config = self._config
        program = RoleHost(
            config=config.model_dump_json(),
            job_name="scene",
            run_id="r1",
            registry=_Address(run),  # type: ignore[arg-type]
            role=self.specs[0].role,
            trains=True,
            trainers=tuple(key for spec in self.specs if spec.trains for key in spec.keys),
            fed=(),
            repeatable=True,
            job=b"",
            schemas={},
            feeds=(),
            packed=False,
            application=None,
            program="",
            passed_over=(),
            versions=describe_here(self._framework.packages),
        )
        return [
            _Group(spec, replace(program, role=spec.role, trains=spec.trains), config, 100 * number)
            for number, spec in enumerate(self.specs, 1)
        ]

    def steps_of(self, key: TaskKey) -> list[int]:
        """Return the steps that a role's processes took, in their order."""
        return [int(line) for line in (self._state / f"taken-{key}").read_text().split()]
