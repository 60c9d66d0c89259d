"""The driver's loop over a registry in memory: the test plays the role hosts and Spark.

The controller runs in a thread of its own; each test is a scene that its hosts act, in order. Every
wait is bounded, and none is longer than what it waits for.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from support.waiting import wait_for

from tfos import wire
from tfos.config import JobConfig
from tfos.errors import ExitCode, RendezvousClosedError
from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.launcher.driver import controller as controller_module
from tfos.launcher.driver import lost_hosts as lost_hosts_module
from tfos.launcher.driver import registration_wait as registration_wait_module
from tfos.launcher.driver.controller import Controller
from tfos.launcher.driver.events import Verdict
from tfos.launcher.driver.role_groups import GroupReport
from tfos.launcher.driver.state import RunState
from tfos.launcher.driver.task_attempts import LostAttempt
from tfos.progress import Progress, RoleProgress
from tfos.registry.contract import Member, StopNotice
from tfos.registry.memory import InMemoryRegistry, InMemoryRun
from tfos.topology import Endpoint, Life, Role, RoleSpec, TaskKey

BOUND_S = 10.0
CHIEF, PS = TaskKey(Role.CHIEF, 0), TaskKey(Role.PS, 0)
WORKERS = (TaskKey(Role.WORKER, 0), TaskKey(Role.WORKER, 1))
WORKER, OTHER = WORKERS
SPECS = (
    RoleSpec(Role.CHIEF, 1, trains=True),
    RoleSpec(Role.WORKER, 2, trains=False, respawns=True),
    RoleSpec(Role.PS, 1, trains=False),
)
RING = (RoleSpec(Role.WORKER, 2, trains=True, gang=True),)


class Group:
    """A role's Spark job, of which the test says how it goes."""

    def __init__(self, spec: RoleSpec) -> None:
        self.spec = spec
        self.killed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.cancelled = threading.Event()
        self.said: dict[tuple[int, int], Failure] = {}
        self.lost: dict[int, str] = {}
        self.preparing = False
        self.submissions: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._submitted = 0
        self._on_end: Callable[[GroupReport], None] | None = None

    def start(self, on_end: Callable[[GroupReport], None]) -> None:
        self._on_end = on_end

    def resubmit(self, on_end: Callable[[GroupReport], None]) -> int:
        self.start(on_end)
        self._submitted += 1
        self.submissions.put(1000 * self._submitted)
        return 1000 * self._submitted

    def end(
        self,
        *outcomes: Outcome,
        failure: Failure | None = None,
        culprit: TaskKey | None = None,
    ) -> None:
        assert self._on_end is not None
        self._on_end(GroupReport(self.spec.role, outcomes, failure, culprit))

    def withdraw(self) -> None:
        pass

    def cancel(self) -> None:
        self.cancelled.set()

    def kill_task(self, task: int) -> None:
        self.killed.put(task)

    def lost_attempts(self) -> tuple[LostAttempt, ...]:
        return tuple(LostAttempt(task, 0, False, text) for task, text in self.lost.items())

    def task_failure(self, index: int, task: int) -> Failure | None:
        return self.said.get((index, task))

    def join(self, timeout_s: float) -> bool:
        return True


class Host:
    """One attempt of a role host: registered, and told what its process is to be."""

    def __init__(self, run: InMemoryRun, key: TaskKey, attempt: int = 0) -> None:
        self.key = key
        task = 100 * (list(Role).index(key.role) + 1) + 10 * key.index + attempt
        endpoint = Endpoint("h", 5000 + task)
        self.member = Member(key, endpoint, "h", 40 + task, attempt, task=task)
        self._run = run
        self.life = Life(key, 0, 0)
        self.enter()

    def enter(self) -> None:
        """Open a session and register in it."""
        self.session = self._run.connect()
        self.orders: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self.stops: queue.SimpleQueue[StopNotice] = queue.SimpleQueue()
        self.session.register(self.member)
        self.session.watch_orders(self.key, lambda *order: self.orders.put(order))
        self.session.watch_stop(self.stops.put)

    def lives(self, generation: int, respawn: int, step: int = 0) -> None:
        """Wait until so is ordered; the process then steps."""
        while self.orders.get(timeout=BOUND_S) != (generation, respawn):
            pass
        self.life = Life(self.key, generation, respawn)
        self.steps(step)

    def steps(self, step: int) -> None:
        progress = RoleProgress(
            Progress(step),
            generation=self.life.generation,
            respawn=self.life.respawn,
            stepping_since=time.time(),
        )
        self.session.publish_progress(self.key, wire.to_json(progress))

    def fails(self, cause: Cause = Cause.PROCESS_DEATH, step: int = 0) -> None:
        """Tell that this life of the process failed."""
        failed = Failure(str(self.key), cause, f"{self.life} died", time.time(), step=step)
        self.session.publish_failure(self.life, wire.to_json(failed))

    def is_done(self) -> None:
        document = wire.to_json(Outcome(self.key, step=9))
        self.session.publish_outcome(self.life.generation, self.key, document)

    def is_told_to_stop(self) -> StopNotice:
        return self.stops.get(timeout=BOUND_S)

    def heard_nothing_new(self) -> bool:
        return self.orders.empty()


class Run(InMemoryRun):
    """Knows every session that was opened in it."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[InMemoryRegistry] = []

    def connect(self) -> InMemoryRegistry:
        self.opened.append(super().connect())
        return self.opened[-1]


class Stage:
    """A run: its controller, its Spark jobs, its role hosts."""

    def __init__(self, specs=SPECS, *, preparing: bool = False, **supervision) -> None:
        self.specs = specs
        registry = supervision.pop("registry", {})
        config = JobConfig.model_validate(
            {"arch": "ps", "supervision": supervision, "registry": registry}
        )
        self.run = Run()
        self.driver: InMemoryRegistry = self.run.connect()
        self.driver.attend()
        self.groups = {spec.role: Group(spec) for spec in specs}
        for group in self.groups.values():
            group.preparing = preparing
        self.controller = Controller(
            config,
            self.driver,
            list(self.groups.values()),  # type: ignore[arg-type]
            deadline=None,
            explain_missing=lambda keys: "ask Spark",
        )
        self._ended: queue.SimpleQueue[RunState] = queue.SimpleQueue()
        self._thread = threading.Thread(target=lambda: self._ended.put(self.controller.run()))
        self._thread.start()
        self.hosts: dict[TaskKey, Host] = {}

    def all_register(self, attempts: Mapping[TaskKey, int] | None = None) -> dict[TaskKey, Host]:
        for spec in self.specs:
            for key in spec.keys:
                self.hosts[key] = Host(self.run, key, (attempts or {}).get(key, 0))
        for host in self.hosts.values():
            host.lives(1, 0)
        return self.hosts

    def wait_for(self, what: Callable[[], object]) -> None:
        wait_for(what, BOUND_S, poll_s=0.005)

    def falls_silent(self) -> None:
        """Cut the driver off from the registry, at a moment at which it only listens."""
        # What it has heard of a role it reads after it has done everything before.
        self.hosts[OTHER].is_done()
        self.wait_for(lambda: OTHER in self.controller.state.outcomes)
        self.run.suspend(self.driver)

    def ends(self) -> RunState:
        """Let every Spark job end by itself; return the controller's last state."""
        for group in self.groups.values():
            group.end()
        return self._ended.get(timeout=BOUND_S)

    def chief_ends_it(self) -> RunState:
        """Let training be done, as every host hears."""
        self.hosts[CHIEF].is_done()
        for host in self.hosts.values():
            assert host.is_told_to_stop() == StopNotice("done", "training is done")
        state = self.ends()
        assert (state.verdict, state.failures) == (Verdict.DONE, ())
        return state

    def close(self) -> None:
        if self._thread.is_alive():
            self.controller.give_up("the scene is over")
            for group in self.groups.values():
                group.end()
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        for session in self.run.opened:
            session.close()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    monkeypatch.setattr(controller_module, "TICK_S", 0.02)
    monkeypatch.setattr(lost_hosts_module, "ASK_EVERY_S", 0.02)
    monkeypatch.setattr(lost_hosts_module, "RETURN_WITHIN_S", 0.05)
    monkeypatch.setattr(controller_module, "PEER_WITHIN_S", 0.2)
    made: list[Stage] = []

    def make(*specs, **settings) -> Stage:
        made.append(Stage(*specs, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def told(stage: Stage) -> list[tuple[str, int, list[str]]]:
    """Return each incident's reaction, generation and whose failures belong to it."""
    return [
        (i.reaction, i.generation, [f.key for f in i.failures]) for i in stage.controller.incidents
    ]


def test_a_run_without_failures_freezes_one_generation_and_is_done(stage):
    scene = stage()
    hosts = scene.all_register()
    cluster = scene.driver.generation(1).cluster.endpoints
    assert cluster == {key: host.member.endpoint for key, host in hosts.items()}
    state = scene.chief_ends_it()
    assert (state.generation, state.incidents) == (1, ())
    assert list(scene.controller.phases) == ["registered", "stopping", "ended"]
    assert scene.controller.incidents == ()


def test_a_workers_process_is_replaced_and_the_others_hear_nothing(stage):
    scene = stage()
    hosts = scene.all_register()
    for respawn in (1, 2):
        hosts[WORKER].fails(step=respawn)
        hosts[WORKER].lives(1, respawn, step=respawn)
        scene.wait_for(lambda n=respawn: len(scene.controller.recoveries.seconds) == n)
    assert all(hosts[key].heard_nothing_new() for key in (CHIEF, OTHER, PS))
    scene.chief_ends_it()
    assert told(scene) == [("respawn", 1, ["worker-0"])] * 2
    assert [i.step for i in scene.controller.incidents] == [1, 2]
    for incident in scene.controller.incidents:
        assert 0 <= incident.recovered_s < BOUND_S


def test_two_workers_that_die_at_once_are_both_replaced(stage):
    scene = stage()
    hosts = scene.all_register()
    for key in WORKERS:
        hosts[key].fails()
    for key in WORKERS:
        hosts[key].lives(1, 1)
    scene.chief_ends_it()
    assert sorted(told(scene)) == [
        ("respawn", 1, ["worker-0"]),
        ("respawn", 1, ["worker-1"]),
    ]


def test_a_dead_parameter_server_begins_a_generation_that_answers_its_peers_too(stage):
    scene = stage()
    hosts = scene.all_register()
    hosts[WORKER].fails(Cause.PEER_LOST)
    hosts[PS].fails()
    hosts[CHIEF].fails(Cause.PEER_LOST)
    for host in hosts.values():
        host.lives(2, 0)
    scene.wait_for(lambda: scene.controller.recoveries.seconds)
    # A life of the first generation that was heard of late decides nothing.
    hosts[OTHER].session.publish_failure(
        Life(OTHER, 1, 0), wire.to_json(Failure("worker-1", Cause.PEER_LOST, "late", time.time()))
    )
    scene.wait_for(lambda: len(scene.controller.incidents[0].failures) == 4)
    assert all(host.heard_nothing_new() for host in hosts.values())
    state = scene.chief_ends_it()
    assert state.generation == 2
    ((reaction, generation, keys),) = told(scene)
    assert (reaction, generation, keys[0]) == ("new_generation", 1, "ps-0")
    assert sorted(keys) == ["chief-0", "ps-0", "worker-0", "worker-1"]


def test_a_lost_host_is_run_again_and_all_begin_with_its_next_attempt(stage):
    scene = stage()
    hosts = scene.all_register()
    hosts[PS].session.close()
    assert scene.groups[Role.PS].killed.get(timeout=BOUND_S) == hosts[PS].member.task
    assert hosts[CHIEF].heard_nothing_new()
    scene.hosts[PS] = Host(scene.run, PS, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    cluster = scene.driver.generation(2).cluster.endpoints
    assert cluster[PS] == scene.hosts[PS].member.endpoint != hosts[CHIEF].member.endpoint
    scene.chief_ends_it()
    assert told(scene) == [("new_generation", 1, ["ps-0"])]
    (incident,) = scene.controller.incidents
    assert "ps-0 vanished: its role host on h (pid " in incident.failures[0].message
    assert scene.groups[Role.PS].killed.empty()


def test_a_host_that_comes_back_while_its_task_is_being_ended_counts_no_more(stage):
    scene = stage()
    hosts = scene.all_register()
    old = hosts[PS]
    old.session.close()
    assert scene.groups[Role.PS].killed.get(timeout=BOUND_S) == old.member.task
    old.enter()
    # The driver reads this after it has seen that one.
    hosts[OTHER].is_done()
    scene.wait_for(lambda: OTHER in scene.controller.state.outcomes)
    assert hosts[CHIEF].heard_nothing_new()
    scene.hosts[PS] = Host(scene.run, PS, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    assert scene.driver.generation(2).cluster.endpoints[PS] == scene.hosts[PS].member.endpoint
    old.session.close()
    scene.chief_ends_it()
    assert told(scene) == [("new_generation", 1, ["ps-0"])]


def test_who_lost_a_peer_waits_for_what_spark_knows_of_it(stage, monkeypatch):
    monkeypatch.setattr(controller_module, "PEER_WITHIN_S", BOUND_S)
    scene = stage()
    hosts = scene.all_register()
    hosts[CHIEF].fails(Cause.PEER_LOST)
    hosts[OTHER].is_done()
    scene.wait_for(lambda: OTHER in scene.controller.state.outcomes)
    assert scene.controller.incidents == ()
    # Its session lives on for a while; no generation begins with it.
    scene.groups[Role.PS].lost[hosts[PS].member.task] = "OOM"
    scene.groups[Role.PS].said[0, scene.hosts[PS].member.task] = Failure(
        "ps-0", Cause.INFRASTRUCTURE, "OOM", 1.0
    )
    scene.wait_for(lambda: scene.controller.incidents)
    assert hosts[CHIEF].heard_nothing_new()
    scene.hosts[PS] = Host(scene.run, PS, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    scene.chief_ends_it()
    assert told(scene) == [("new_generation", 1, ["ps-0", "chief-0"])]


def test_a_host_that_spark_has_lost_is_missed_before_its_session_ends(stage, caplog):
    scene = stage()
    hosts = scene.all_register()
    old = hosts[OTHER]
    scene.groups[Role.WORKER].lost[old.member.task] = "ExecutorLostFailure"
    scene.wait_for(lambda: scene.controller.incidents)
    # Nobody waits for it to come back.
    scene.wait_for(lambda: "worker-1 is lost: its task is run again" in caplog.text)
    assert hosts[CHIEF].heard_nothing_new()
    scene.hosts[OTHER] = Host(scene.run, OTHER, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    old.session.close()
    scene.chief_ends_it()
    # Spark runs the task again unasked.
    assert scene.groups[Role.WORKER].killed.empty()
    assert told(scene) == [("new_generation", 1, ["worker-1"])]


def test_who_lost_a_peer_that_nobody_misses_is_answered_in_the_end(stage):
    scene = stage()
    hosts = scene.all_register()
    hosts[CHIEF].fails(Cause.PEER_LOST)
    for host in hosts.values():
        host.lives(2, 0)
    scene.chief_ends_it()
    assert told(scene) == [("new_generation", 1, ["chief-0"])]


def test_what_spark_says_of_a_lost_host_is_told(stage):
    scene = stage()
    hosts = scene.all_register()
    said = Failure("worker-1", Cause.INFRASTRUCTURE, "ExecutorLostFailure: OOM", 1.0)
    scene.groups[Role.WORKER].said[1, scene.hosts[OTHER].member.task] = said
    hosts[OTHER].session.close()
    scene.hosts[OTHER] = Host(scene.run, OTHER, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    scene.chief_ends_it()
    (incident,) = scene.controller.incidents
    assert "ended: ExecutorLostFailure: OOM" in incident.failures[0].message


def test_a_member_replaced_by_a_newer_attempt_begins_the_next_generation_at_once(stage):
    scene = stage()
    hosts = scene.all_register()
    old = hosts[WORKER]
    scene.hosts[WORKER] = Host(scene.run, WORKER, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    # What becomes of the older attempt concerns nobody any more.
    old.session.close()
    scene.chief_ends_it()
    assert told(scene) == [("new_generation", 1, ["worker-0"])]
    assert scene.groups[Role.WORKER].killed.empty()


def test_a_host_whose_session_is_lost_comes_back_and_its_task_goes_on(stage, monkeypatch):
    monkeypatch.setattr(lost_hosts_module, "RETURN_WITHIN_S", BOUND_S)
    scene = stage()
    hosts = scene.all_register()
    lost = hosts[WORKER]
    dead = lost.life
    lost.session.expire()
    lost.enter()
    lost.life = dead
    lost.fails(Cause.INFRASTRUCTURE)
    # Whether the driver saw the host away for a moment or heard of the life first: it lives again.
    while (order := lost.orders.get(timeout=BOUND_S)) <= (1, 0):
        pass
    for host in scene.hosts.values():
        if host is not lost and order == (2, 0):
            host.lives(2, 0)
    lost.life = Life(WORKER, *order)
    scene.chief_ends_it()
    ((reaction, generation, keys),) = told(scene)
    assert (reaction, generation) == ("new_generation" if order == (2, 0) else "respawn", 1)
    assert set(keys) == {"worker-0"}
    assert scene.groups[Role.WORKER].killed.empty()


def test_a_host_that_came_back_is_not_ended_when_its_time_to_return_is_up(stage, monkeypatch):
    monkeypatch.setattr(lost_hosts_module, "RETURN_WITHIN_S", 2.0)
    scene = stage()
    hosts = scene.all_register()
    hosts[PS].session.expire()
    scene.wait_for(lambda: scene.controller.state.incidents)
    hosts[PS].enter()
    for host in hosts.values():
        host.lives(2, 0)
    # The next to be lost is asked for after it: by then the first one's time has passed.
    hosts[OTHER].session.close()
    assert scene.groups[Role.WORKER].killed.get(timeout=BOUND_S) == hosts[OTHER].member.task
    assert scene.groups[Role.PS].killed.empty()


def test_a_host_lost_while_roles_register_is_run_again_and_is_no_incident(stage):
    scene = stage()
    early = Host(scene.run, PS)
    scene.wait_for(lambda: PS in scene.controller.state.members)
    early.session.close()
    assert scene.groups[Role.PS].killed.get(timeout=BOUND_S) == early.member.task
    scene.all_register({PS: 1})
    assert scene.chief_ends_it().incidents == ()


def test_the_users_error_before_the_first_step_ends_the_run_at_once(stage):
    scene = stage()
    hosts = scene.all_register()
    hosts[CHIEF].fails(Cause.USER_CODE, step=-1)
    for host in hosts.values():
        assert host.is_told_to_stop() == StopNotice("failed", "chief-0.g1.r0 died")
    state = scene.ends()
    assert (state.verdict, state.incidents) == (Verdict.FAILED, ())
    assert state.failures[0].cause is Cause.USER_CODE


def test_without_restarts_the_first_failure_ends_the_run(stage):
    scene = stage(max_restarts=0)
    hosts = scene.all_register()
    hosts[WORKER].fails()
    assert hosts[PS].is_told_to_stop().outcome == "failed"
    assert scene.ends().verdict is Verdict.FAILED
    assert scene.groups[Role.WORKER].killed.empty()


def test_a_spent_budget_ends_the_run_and_says_so(stage):
    scene = stage(max_restarts=1)
    hosts = scene.all_register()
    hosts[WORKER].fails(step=1)
    hosts[WORKER].lives(1, 1, step=2)
    hosts[OTHER].fails(step=2)
    assert hosts[PS].is_told_to_stop().reason == "worker-1.g1.r0 died"
    state = scene.ends()
    assert state.failures[0].hint == "1 restarts in 600 s are all that --max-restarts 1 allows"
    assert told(scene) == [("respawn", 1, ["worker-0"])]


@pytest.mark.parametrize("registered", [True, False])
def test_a_container_killed_for_its_memory_ends_the_run(stage, registered):
    scene = stage()
    host = scene.all_register()[CHIEF] if registered else Host(scene.run, CHIEF)
    said = "Container killed by YARN for exceeding physical memory limits. 2.1 GB of 2 GB used."
    scene.groups[Role.PS].lost[7] = said
    assert "killed by the cluster: 2.1 GB of 2 GB" in host.is_told_to_stop().reason
    state = scene.ends()
    assert (state.verdict, state.incidents) == (Verdict.FAILED, ())
    assert state.failures[0].cause.exit_code == ExitCode.RESOURCES


def test_failing_again_at_the_same_step_ends_the_run(stage):
    scene = stage(max_restarts=9)
    hosts = scene.all_register()
    # The furthest step of any role counts, also of one that never got there.
    hosts[CHIEF].steps(40)
    hosts[PS].fails(step=3)
    for host in hosts.values():
        host.lives(2, 0, step=30)
    hosts[PS].fails(step=30)
    hosts[CHIEF].is_told_to_stop()
    state = scene.ends()
    assert "without getting past step 40" in state.failures[0].hint
    assert len(state.incidents) == 1


def test_a_host_that_does_not_come_back_ends_the_run_in_time(stage):
    scene = stage(registry={"register_timeout_s": 3.0})
    hosts = scene.all_register()
    hosts[PS].session.close()
    assert "ps-0 did not register within 3 s" in hosts[CHIEF].is_told_to_stop().reason
    state = scene.ends()
    assert state.verdict is Verdict.FAILED
    assert state.failures[0].hint == "ask Spark"
    assert told(scene) == [("new_generation", 1, ["ps-0"])]


def test_who_is_waited_for_is_named(stage, monkeypatch, caplog):
    monkeypatch.setattr(registration_wait_module, "TELL_EVERY_S", 0.05)
    caplog.set_level(logging.INFO, logger="tfos")
    scene = stage()
    for key in (CHIEF, WORKER, PS):
        scene.hosts[key] = Host(scene.run, key)
    scene.wait_for(lambda: "waiting for worker-1 to register, " in caplog.text)
    scene.hosts[OTHER] = Host(scene.run, OTHER)
    for host in scene.hosts.values():
        host.lives(1, 0)
    scene.chief_ends_it()


def test_what_happened_while_the_registry_was_silent_is_read_afterwards(stage):
    scene = stage()
    hosts = scene.all_register()
    scene.falls_silent()
    hosts[WORKER].fails()
    hosts[PS].session.close()
    assert hosts[WORKER].heard_nothing_new()
    scene.run.resume(scene.driver)
    assert scene.groups[Role.PS].killed.get(timeout=BOUND_S) == hosts[PS].member.task
    scene.hosts[PS] = Host(scene.run, PS, attempt=1)
    for host in scene.hosts.values():
        host.lives(2, 0)
    scene.chief_ends_it()
    reactions = [reaction for reaction, *_ in told(scene)]
    assert reactions == ["respawn", "new_generation"]


def test_who_lost_a_peer_while_the_registry_was_silent_waits_for_that_peer(stage, monkeypatch):
    monkeypatch.setattr(controller_module, "PEER_WITHIN_S", BOUND_S)
    scene = stage()
    hosts = scene.all_register()
    scene.falls_silent()
    hosts[CHIEF].fails(Cause.PEER_LOST)
    scene.run.resume(scene.driver)
    # The driver reads the failure first; the other is told after that.
    scene.wait_for(lambda: scene.controller._held)
    hosts[PS].fails()
    for host in hosts.values():
        host.lives(2, 0)
    scene.controller._held_until = 0.0  # the time for that is up
    scene.wait_for(lambda: len(scene.controller.incidents[0].failures) == 2)
    scene.chief_ends_it()
    assert told(scene) == [("new_generation", 1, ["ps-0", "chief-0"])]


def test_training_that_ends_while_the_registry_is_silent_is_done(stage):
    scene = stage()
    hosts = scene.all_register()
    scene.falls_silent()
    hosts[CHIEF].is_done()
    scene.run.resume(scene.driver)
    assert hosts[PS].is_told_to_stop().outcome == "done"
    assert scene.ends().verdict is Verdict.DONE


def test_a_lost_session_of_the_driver_ends_the_run(stage):
    scene = stage()
    scene.all_register()
    scene.driver.expire()
    state = scene.ends()
    assert state.verdict is Verdict.FAILED
    assert "ZooKeeper (embedded) was lost" in state.failures[0].message


def test_a_host_that_failed_before_the_first_generation_ends_the_run(stage):
    scene = stage()
    host = Host(scene.run, WORKER)
    failed = Failure("worker-0", Cause.INFRASTRUCTURE, "no port", 1.0)
    host.session.publish_outcome(0, WORKER, wire.to_json(Outcome(WORKER, failed)))
    assert host.is_told_to_stop() == StopNotice("failed", "no port")
    assert scene.ends().failures == (failed,)
    with pytest.raises(RendezvousClosedError):
        Host(scene.run, PS)


def test_spark_giving_a_group_up_ends_the_run(stage):
    scene = stage()
    hosts = scene.all_register()
    aborted = Failure("worker", Cause.INFRASTRUCTURE, "Spark ended the worker tasks: aborted", 1.0)
    scene.groups[Role.WORKER].end(failure=aborted)
    assert hosts[PS].is_told_to_stop().reason == aborted.message
    assert scene.ends().failures[0] == aborted


@pytest.mark.parametrize(
    ("ask", "verdict", "words"),
    [
        (lambda c: c.interrupt("SIGINT", "Ctrl-C"), Verdict.INTERRUPTED, "SIGINT: Ctrl-C"),
        (lambda c: c.give_up("Spark died"), Verdict.FAILED, "Spark died"),
    ],
)
def test_the_run_ends_when_it_is_asked_to(stage, ask, verdict, words):
    scene = stage()
    hosts = scene.all_register()
    ask(scene.controller)
    assert words in hosts[CHIEF].is_told_to_stop().reason
    assert scene.ends().verdict is verdict


# -- a gang ----------------------------------------------------------------------------------------


def stage_lost(scene: Stage, culprit: TaskKey) -> None:
    """Let Spark end the ring's barrier stage because of one of its tasks."""
    lost = Failure(str(culprit), Cause.INFRASTRUCTURE, "ExecutorLostFailure (137)", time.time())
    scene.groups[Role.WORKER].end(failure=lost, culprit=culprit)


def ring_is_done(scene: Stage) -> RunState:
    for key in WORKERS:
        scene.hosts[key].is_done()
    assert scene.hosts[WORKER].is_told_to_stop().outcome == "done"
    return scene.ends()


def test_a_lost_gang_is_submitted_again_and_its_new_hosts_win_at_once(stage):
    scene = stage(RING)
    old = dict(scene.all_register())
    stage_lost(scene, OTHER)
    attempt = scene.groups[Role.WORKER].submissions.get(timeout=BOUND_S)
    # The sessions of the dead submission live on; one of its hosts even comes back now.
    old[WORKER].enter()
    scene.hosts[WORKER] = Host(scene.run, WORKER, attempt)
    scene.wait_for(lambda: WORKER in scene.controller.state.members)
    assert scene.controller.state.members == {WORKER}
    scene.hosts[OTHER] = Host(scene.run, OTHER, attempt)
    for host in scene.hosts.values():
        host.lives(2, 0)
    cluster = scene.driver.generation(2).cluster.endpoints
    assert cluster == {key: host.member.endpoint for key, host in scene.hosts.items()}
    assert scene.groups[Role.WORKER].killed.empty()
    assert ring_is_done(scene).verdict is Verdict.DONE
    assert told(scene) == [("new_generation", 1, ["worker-1"])]
    (incident,) = scene.controller.incidents
    pid = old[OTHER].member.pid
    assert incident.failures[0].message == (
        f"worker-1 vanished: its role host on h (pid {pid}) ended: ExecutorLostFailure (137)"
    )


def test_a_member_that_falls_silent_is_ended_and_takes_its_gang_with_it(stage):
    scene = stage(RING)
    hosts = dict(scene.all_register())
    hosts[OTHER].session.close()
    assert scene.groups[Role.WORKER].killed.get(timeout=BOUND_S) == hosts[OTHER].member.task
    assert scene.groups[Role.WORKER].submissions.empty()
    stage_lost(scene, OTHER)
    attempt = scene.groups[Role.WORKER].submissions.get(timeout=BOUND_S)
    for key in WORKERS:
        scene.hosts[key] = Host(scene.run, key, attempt)
    for host in scene.hosts.values():
        host.lives(2, 0)
    assert ring_is_done(scene).verdict is Verdict.DONE
    assert told(scene) == [("new_generation", 1, ["worker-1", "worker-1"])]


def test_a_member_that_comes_back_by_itself_keeps_the_gangs_job(stage, monkeypatch):
    monkeypatch.setattr(lost_hosts_module, "RETURN_WITHIN_S", BOUND_S)
    scene = stage(RING)
    hosts = scene.all_register()
    hosts[OTHER].session.close()
    scene.wait_for(lambda: scene.controller.incidents)
    hosts[OTHER].enter()
    for host in hosts.values():
        host.lives(2, 0)
    group = scene.groups[Role.WORKER]
    assert (group.killed.empty(), group.submissions.empty()) == (True, True)
    assert ring_is_done(scene).verdict is Verdict.DONE


def test_a_lost_gang_is_heard_of_though_the_registry_is_silent(stage):
    scene = stage(RING)
    scene.all_register()
    scene.run.suspend(scene.driver)
    stage_lost(scene, OTHER)
    attempt = scene.groups[Role.WORKER].submissions.get(timeout=BOUND_S)
    scene.run.resume(scene.driver)
    for key in WORKERS:
        scene.hosts[key] = Host(scene.run, key, attempt)
    for host in scene.hosts.values():
        host.lives(2, 0)
    assert ring_is_done(scene).verdict is Verdict.DONE


def time_is_up_and_given_anew(scene: Stage) -> None:
    registration = scene.controller._registration
    deadline = registration._deadline
    scene.wait_for(lambda: registration._deadline > deadline)
    assert scene.controller.state.verdict is None


def test_a_gang_that_is_being_prepared_may_take_its_time_to_register(stage):
    scene = stage(RING, preparing=True, registry={"register_timeout_s": 1.0})
    group = scene.groups[Role.WORKER]
    time_is_up_and_given_anew(scene)
    scene.all_register()
    stage_lost(scene, OTHER)
    group.submissions.get(timeout=BOUND_S)
    time_is_up_and_given_anew(scene)
    group.preparing = False
    scene.wait_for(lambda: scene.controller.state.verdict is Verdict.FAILED)
    assert "did not register within 1 s" in scene.ends().failures[0].message
