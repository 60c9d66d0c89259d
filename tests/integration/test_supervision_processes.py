"""One role's lives, with real processes: a small program acts as the training process.

The test is the driver: it orders over a registry in memory and reads what the role tells there.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support import acting_process
from support.waiting import wait_for

from tfos import wire
from tfos.config import JobConfig
from tfos.errors import InfrastructureError, RendezvousTimeoutError
from tfos.fault.drills.drills import HostDrill
from tfos.fault.drills.faults import Drill, Fault
from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.launcher.role import process_life
from tfos.launcher.role import progress as role_progress
from tfos.launcher.role import supervision as supervision_module
from tfos.launcher.role.membership import HostSession
from tfos.launcher.role.supervision import Supervision
from tfos.progress import RoleProgress
from tfos.read_plan import FeedPosition
from tfos.registry.contract import Generation, Member, StopNotice
from tfos.registry.memory import InMemoryRun
from tfos.topology import ClusterSpec, Endpoint, Life, Role, TaskKey
from tfos.training_parts import ProcessFacts

KEY, CHIEF = TaskKey(Role.WORKER, 0), TaskKey(Role.CHIEF, 0)
MEMBER = Member(KEY, Endpoint("h", 5000), "h", 41, task=7)
CLUSTER = ClusterSpec({KEY: MEMBER.endpoint, CHIEF: Endpoint("h", 5001)})
BOUND_S = 20.0
READ = FeedPosition(1, 40)


def spec(
    life: Life, act: str, continue_at: FeedPosition | None, trains: bool = False
) -> TrainingSpec:
    """Return what a life is told; the program heeds `act` alone."""
    facts = ProcessFacts(
        job_name="fm",
        run_id="r1",
        generation=life.generation,
        key=life.key,
        cluster=CLUSTER,
        trainers=(CHIEF,),
        row_orders=(0,),
        params={"act": act},
    )
    return TrainingSpec(
        facts=facts,
        arch="ps",
        trains=trains or act == "connect",
        job_file="",
        application=None,
        program="",
        schemas={},
        spool=None,
        feed_index=0,
        continue_at=continue_at,
        checkpoint_url=None,
        checkpoint_keep=3,
        passed_over=[],
        wait_timeout_s=1.0,
        log_level="info",
    )


class Stage:
    """A role, its registry, and what each of its lives is to do ("run" unless said)."""

    def __init__(
        self,
        directory: Path,
        faults: tuple[str, ...] = (),
        silent: bool = False,
        failure: Failure | None = None,
        trains: bool = False,
        **settings,
    ) -> None:
        self.directory = directory
        self._trains = trains
        self._others = set(psutil.Process().children(recursive=True))
        self.acts: dict[tuple[int, int], str] = {}
        self.told: dict[tuple[int, int], FeedPosition | None] = {}
        self.run = InMemoryRun()
        self.driver = self.run.connect()
        self.driver.attend()
        config = JobConfig.model_validate({"arch": "ps", **settings})
        self.session = HostSession(self.run.connect, MEMBER, patience_s=BOUND_S)
        self.role = Supervision(
            config,
            KEY,
            self.session,
            directory,
            self._spec,
            HostDrill(Drill(map(Fault.parse, faults)), self.session.expire, directory),
            {},
            lambda: {"train": 1000},
        )
        if silent:
            self.run.suspend(self.session.registry)
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        if failure is not None:
            self.role.fail(failure)
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _spec(self, life: Life, generation: Generation, read: FeedPosition | None) -> TrainingSpec:
        assert generation.number == life.generation
        order = (life.generation, life.respawn)
        self.told[order] = read
        return spec(life, self.acts.get(order, "run"), read, self._trains)

    def processes(self) -> dict[str, psutil.Process]:
        """Return what runs because of the role, by the last part of its directory."""
        found = {}
        for process in set(psutil.Process().children(recursive=True)) - self._others:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[Path(process.cwd()).name] = process
        return found

    def two_processes(self) -> dict[str, psutil.Process]:
        """Wait until the role's first process and its standby are there."""
        self.wait_for(lambda: set(self.processes()) == {"process-1", "process-2"})
        return self.processes()

    def _play(self) -> None:
        error: BaseException | None = None
        try:
            self.role.run()
        except BaseException as raised:
            error = raised
            self.role.fail(Failure(str(KEY), Cause.INFRASTRUCTURE, str(raised), 1.0))
        self.role.tell_failure()
        self._ended.put(error)

    def begins(self, generation: int) -> None:
        """Wait until the role is registered and begin a generation."""
        self.wait_for(lambda: self.driver.members() == {KEY: MEMBER})
        self.driver.publish_generation(Generation(generation, CLUSTER))

    def steps_in(self, generation: int, respawn: int) -> RoleProgress:
        """Wait until the role tells that a life has taken its steps; return its progress."""

        def told() -> RoleProgress | None:
            document = self.driver.progress().get(KEY)
            if document is None:
                return None
            role = wire.from_json(RoleProgress, document)
            order = (role.progress.step, role.generation, role.respawn)
            return role if order == (5, generation, respawn) else None

        return self.wait_for(told)

    def failure_of(self, generation: int, respawn: int) -> Failure:
        """Wait until the failure of a life is told."""
        life = Life(KEY, generation, respawn)
        return wire.from_json(Failure, self.wait_for(lambda: self.driver.failures().get(life)))

    def wait_for(self, what: Callable[[], object]):
        @functools.wraps(what)
        def look() -> object:
            found = what()
            assert found or self._ended.empty(), self._ended.get()
            return found

        return wait_for(look, BOUND_S)

    def stops(self) -> BaseException | None:
        """End the run as a driver does; return what the role's loop raised."""
        self.driver.stop(StopNotice("done", "trained"))
        return self.ends()

    def ends(self) -> BaseException | None:
        error = self._ended.get(timeout=BOUND_S)
        self._thread.join(BOUND_S)
        assert not list(self.directory.iterdir())
        assert not self.processes()
        return error

    def close(self) -> None:
        self.role.fail(Failure("worker-0", Cause.INFRASTRUCTURE, "the scene is over", 1.0))
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        self.session.close()
        self.driver.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    monkeypatch.setattr(process_life, "PROGRAM", acting_process.__name__)
    monkeypatch.setattr(role_progress, "EVERY_S", 0.0)
    monkeypatch.setattr(supervision_module, "STANDBY_AFTER_STEPPING_S", 0.0)
    (tmp_path / "role").mkdir()
    made: list[Stage] = []

    def make(*faults: str, acts: dict[tuple[int, int], str] | None = None, **settings) -> Stage:
        settings.setdefault("supervision", {}).setdefault("standby", False)
        made.append(Stage(tmp_path / "role", faults, **settings))
        made[-1].acts.update(acts or {})
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_life_is_begun_told_of_and_ended(stage):
    scene = stage()
    scene.begins(1)
    role = scene.steps_in(1, 0)
    assert role.read == READ
    assert role.stepping_since <= time.time()
    assert scene.stops() is None
    outcome = scene.role.outcome()
    assert (outcome.failure, outcome.step, outcome.rows) == (None, 5, {"train": 1000})
    assert outcome.metrics == {"loss": 0.5}
    assert "stepping" in outcome.phases
    assert scene.driver.failures() == {}


def test_a_killed_process_is_told_of_and_the_next_life_continues_where_it_was(stage):
    scene = stage(acts={(1, 0): "die", (1, 1): "die"})
    scene.begins(1)
    for respawn in (0, 1):
        failure = scene.failure_of(1, respawn)
        assert failure.cause is Cause.PROCESS_DEATH
        assert (failure.signal_name, failure.step) == ("SIGKILL", 5)
        assert tuple(failure.last_lines) == ("acts die",)
        scene.driver.order_respawn(Life(KEY, 1, respawn + 1))
    scene.steps_in(1, 2)
    assert scene.told == {(1, 0): None, (1, 1): READ, (1, 2): READ}
    assert scene.stops() is None
    # The driver heard of both: they are no part of how the role ended.
    assert scene.role.outcome().failure is None


def test_a_new_generation_ends_the_life_and_begins_from_the_checkpoint(stage):
    scene = stage()
    for generation in (1, 2, 3):
        scene.begins(generation)
        scene.steps_in(generation, 0)
    assert scene.told == {(1, 0): None, (2, 0): None, (3, 0): None}
    assert scene.stops() is None
    assert scene.driver.failures() == {}


def test_only_the_newest_order_is_lived(stage):
    scene = stage(acts={(1, 0): "die"})
    scene.begins(1)
    scene.failure_of(1, 0)
    for respawn in (1, 2, 3):
        scene.driver.order_respawn(Life(KEY, 1, respawn))
    scene.driver.publish_generation(Generation(2, CLUSTER))
    scene.steps_in(2, 0)
    assert set(scene.told) <= {(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)}
    assert scene.told[2, 0] is None
    assert scene.stops() is None


def test_the_users_error_is_told_as_it_was(stage):
    scene = stage(acts={(1, 0): "raise"})
    scene.begins(1)
    failure = scene.failure_of(1, 0)
    assert (failure.cause, failure.message) == (Cause.USER_CODE, "ZeroDivisionError: oh")
    assert failure.traceback == "line 1"
    assert scene.stops() is None


def test_a_role_that_runs_no_code_of_the_users_cannot_fail_by_it(stage):
    scene = stage(acts={(1, 0): "exit"})
    scene.begins(1)
    failure = scene.failure_of(1, 0)
    assert (failure.cause, failure.exit_code) == (Cause.PROCESS_DEATH, 3)
    assert scene.stops() is None


def test_a_hung_process_is_ended_and_told_of(stage):
    scene = stage(acts={(1, 0): "hang"}, supervision={"heartbeat_timeout_s": 2.0})
    scene.begins(1)
    failure = scene.failure_of(1, 0)
    assert failure.cause is Cause.STALLED
    assert re.search(r"it gave no sign of life for \d+\.\d s", failure.message)
    assert scene.stops() is None


def test_a_process_that_does_not_reach_its_peers_is_ended_and_they_are_named(stage):
    scene = stage(acts={(1, 0): "connect"}, supervision={"connect_timeout_s": 0.5})
    scene.begins(1)
    failure = scene.failure_of(1, 0)
    assert failure.cause is Cause.STALLED
    assert "it did not connect to its peers within 0.5 s: chief-0 at h:5001 (" in failure.message
    assert "supervision.connect_timeout_s" in failure.hint
    assert scene.stops() is None


def test_who_is_done_says_so_waits_and_lives_again_if_that_is_ordered(stage):
    scene = stage(acts={(1, 0): "done"})
    scene.begins(1)
    outcome = scene.wait_for(lambda: scene.driver.outcomes(1).get(KEY))
    assert (outcome["failure"], outcome["result"]) == (None, {"rmse": 1.0})
    assert outcome["rows"] == {"train": 1000}
    scene.begins(2)
    scene.steps_in(2, 0)
    assert scene.stops() is None


def test_a_lost_session_ends_the_life_and_the_host_comes_back(stage):
    scene = stage()
    scene.begins(1)
    scene.steps_in(1, 0)
    scene.session.registry.expire()
    failure = scene.failure_of(1, 0)
    assert failure.cause is Cause.INFRASTRUCTURE
    assert "worker-0 lost its ZooKeeper session (embedded)" in failure.message
    scene.wait_for(lambda: scene.driver.members() == {KEY: MEMBER})
    scene.driver.order_respawn(Life(KEY, 1, 1))
    scene.steps_in(1, 1)
    assert scene.told[1, 1] == READ
    assert scene.stops() is None


def test_a_registry_that_is_silent_at_first_is_registered_with_later(stage):
    scene = stage(silent=True)
    scene.begins(1)
    scene.steps_in(1, 0)
    assert scene.stops() is None
    assert scene.driver.failures() == {}


def test_a_lost_session_before_the_first_life_costs_nothing(stage):
    scene = stage()
    scene.wait_for(lambda: scene.driver.members())
    scene.session.registry.expire()
    scene.begins(1)
    scene.steps_in(1, 0)
    assert scene.stops() is None
    assert scene.driver.failures() == {}


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("kill:worker-0@feed", Cause.PROCESS_DEATH),
        ("kill:worker-0@step=5", Cause.PROCESS_DEATH),
        ("expire:worker-0@step=5", Cause.INFRASTRUCTURE),
    ],
)
def test_a_drill_ends_one_life(stage, fault, cause):
    scene = stage(fault)
    scene.begins(1)
    assert scene.failure_of(1, 0).cause is cause
    scene.driver.order_respawn(Life(KEY, 1, 1))
    scene.steps_in(1, 1)
    assert scene.stops() is None
    assert len(scene.driver.failures()) == 1


def test_a_drill_before_registering_costs_only_the_waiting_process(stage):
    scene = stage("kill:worker-0@register")
    scene.begins(1)
    scene.steps_in(1, 0)
    assert (scene.directory / "process-2").exists()
    assert scene.stops() is None


def test_a_drill_after_the_outcome_changes_nothing(stage):
    scene = stage("kill:worker-0@shutdown", acts={(1, 0): "done"})
    scene.begins(1)
    outcome = scene.wait_for(lambda: scene.driver.outcomes(1).get(KEY))
    assert outcome["failure"] is None
    assert scene.stops() is None
    assert scene.driver.failures() == {}


def test_a_server_ends_after_the_trainers_and_without_a_word(stage, capsys):
    scene = stage(supervision={"grace_s": 60.0})
    scene.begins(1)
    scene.steps_in(1, 0)
    scene.driver.stop(StopNotice("interrupted", "SIGINT received"))
    scene.wait_for(lambda: scene.role._last_to_end_at is not None)
    assert "process-1" in scene.processes()
    # What the chief's host tells once its process has kept a checkpoint.
    scene.driver.publish_outcome(1, CHIEF, wire.to_json(Outcome(CHIEF, done=False)))
    assert scene.ends() is None
    assert "torn down" not in capsys.readouterr().err


@pytest.mark.parametrize("outcome", ["interrupted", "failed"])
def test_a_server_waits_only_so_long_for_trainers_that_say_nothing(stage, outcome):
    # With a failure not at all: a minute would be too long for the bound of the test.
    scene = stage(supervision={"grace_s": 0.2 if outcome == "interrupted" else 60.0})
    scene.begins(1)
    scene.steps_in(1, 0)
    scene.driver.stop(StopNotice(outcome, "SIGINT received"))
    assert scene.ends() is None


def test_a_trainer_that_was_stopped_tells_its_servers(stage, capsys):
    scene = stage(trains=True)
    scene.begins(1)
    scene.steps_in(1, 0)
    scene.driver.stop(StopNotice("interrupted", "SIGINT received"))
    assert scene.ends() is None
    outcome = wire.from_json(Outcome, scene.driver.outcomes(1)[KEY])
    assert (outcome.failure, outcome.done, outcome.step) == (None, False, 5)
    # The user's own words, to the end.
    assert "[worker-0] torn down" in capsys.readouterr().err


def test_a_driver_that_is_gone_ends_the_role(stage):
    scene = stage()
    scene.begins(1)
    scene.steps_in(1, 0)
    scene.driver.close()
    assert scene.ends() is None
    # Nor does it come back to tell of what fails then.
    scene.role.fail(Failure("worker-0", Cause.INFRASTRUCTURE, "late", 1.0))
    scene.session.close()
    scene.role.tell_failure()
    assert not scene.session.connected


def test_a_failure_around_the_process_ends_the_role_and_is_how_it_ended(stage):
    scene = stage()
    scene.begins(1)
    scene.steps_in(1, 0)
    failed = Failure("worker-0", Cause.DATA, "a null in column a", 1.0)
    scene.role.fail(failed)
    scene.role.fail(Failure("worker-0", Cause.DATA, "another", 2.0))
    assert scene.ends() is None
    assert scene.role.outcome().failure == failed
    assert scene.driver.outcomes(0)[KEY]["failure"]["message"] == "a null in column a"


@pytest.mark.parametrize("silent", [False, True])
def test_a_failure_before_the_role_is_registered_is_told_too(stage, silent):
    scene = stage(silent=silent, failure=Failure("worker-0", Cause.DATA, "a null", 1.0))
    assert scene.ends() is None
    assert scene.driver.members() == {KEY: MEMBER}
    assert scene.driver.outcomes(0)[KEY]["failure"]["message"] == "a null"


def test_a_host_that_cannot_start_a_process_registers_and_tells_it(stage, monkeypatch):
    def full(*_):
        raise InfrastructureError("no space")

    monkeypatch.setattr(supervision_module, "WaitingProcess", full)
    scene = stage()
    assert isinstance(scene.ends(), InfrastructureError)
    assert scene.driver.members() == {KEY: MEMBER}
    assert scene.driver.outcomes(0)[KEY]["failure"]["message"] == "no space"


def test_a_role_that_hears_nothing_gives_up_in_time(stage):
    scene = stage(registry={"register_timeout_s": 0.5})
    error = scene.ends()
    assert isinstance(error, RendezvousTimeoutError)
    assert "worker-0 heard nothing from the driver for 1 s after worker-0.g0.r0" in str(error)


def test_a_host_whose_role_another_one_took_ends_without_a_word(stage):
    scene = stage()
    scene.begins(1)
    scene.steps_in(1, 0)
    other = scene.run.connect()
    other.register(replace(MEMBER, attempt=MEMBER.attempt + 1, pid=MEMBER.pid + 1))
    scene.wait_for(lambda: scene.driver.members()[KEY] != MEMBER)
    elsewhere = ClusterSpec({**CLUSTER.endpoints, KEY: Endpoint("other", 7000)})
    scene.driver.publish_generation(Generation(2, elsewhere))
    assert scene.ends() is None
    assert scene.driver.outcomes(2) == scene.driver.outcomes(1) == scene.driver.failures() == {}
    assert list(scene.told) == [(1, 0)]
    other.close()


def test_a_host_that_takes_a_lost_ones_place_waits_for_a_generation_with_it(stage):
    scene = stage()
    scene.wait_for(lambda: scene.driver.members() == {KEY: MEMBER})
    elsewhere = ClusterSpec({**CLUSTER.endpoints, KEY: Endpoint("lost", 7000)})
    scene.driver.publish_generation(Generation(1, elsewhere))
    scene.driver.publish_generation(Generation(2, CLUSTER))
    scene.steps_in(2, 0)
    assert list(scene.told) == [(2, 0)]
    assert scene.stops() is None
    outcome = scene.role.outcome()
    assert (outcome.done, outcome.failure) == (False, None)


def test_a_standby_takes_over(stage):
    scene = stage(supervision={"standby": True})
    scene.begins(1)
    scene.steps_in(1, 0)
    processes = scene.two_processes()
    processes["process-1"].kill()
    assert scene.failure_of(1, 0).signal_name == "SIGKILL"
    scene.driver.order_respawn(Life(KEY, 1, 1))
    scene.steps_in(1, 1)
    assert processes["process-2"].is_running()
    assert scene.stops() is None


def test_a_standby_that_died_is_replaced(stage):
    scene = stage(supervision={"standby": True})
    scene.begins(1)
    scene.steps_in(1, 0)
    processes = scene.two_processes()
    processes["process-2"].kill()
    scene.wait_for(lambda: not scene.role._standby.alive)
    processes["process-1"].kill()
    scene.failure_of(1, 0)
    scene.driver.order_respawn(Life(KEY, 1, 1))
    scene.steps_in(1, 1)
    assert (scene.directory / "process-3").exists()
    assert scene.stops() is None
