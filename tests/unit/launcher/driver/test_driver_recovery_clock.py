"""How long a recovery takes: until every restarted role steps again, on the roles' own word."""

from __future__ import annotations

from tfos.fault.failures.record import Cause, Failure
from tfos.fault.failures.restart_policy import Incident, Reaction
from tfos.launcher.driver.recovery_clock import RecoveryClock
from tfos.progress import RoleProgress
from tfos.topology import Life, Role, TaskKey

CHIEF, WORKER = TaskKey(Role.CHIEF, 0), TaskKey(Role.WORKER, 0)


def incident(time: float, cause: Cause = Cause.PROCESS_DEATH, *followed_by: Failure) -> Incident:
    died = Failure(key="worker-0", cause=cause, message="died", time=time)
    return Incident(died, Reaction.RESPAWN, 1, 9, time + 1, followed_by)


def stepping(life: Life, since: float | None) -> dict[TaskKey, RoleProgress]:
    role = RoleProgress(generation=life.generation, respawn=life.respawn, stepping_since=since)
    return {life.key: role}


def test_nothing_is_measured_before_something_failed():
    clock = RecoveryClock()
    assert not clock.open
    assert clock.look(stepping(Life(CHIEF, 1, 0), 5.0)) is None
    assert clock.seconds == {}


def test_it_counts_from_the_failure_to_the_first_step_of_the_life_that_follows():
    clock, new = RecoveryClock(), Life(WORKER, 1, 1)
    clock.start([incident(100.0)], [new])
    assert clock.open
    assert clock.look({}) is None
    assert clock.look(stepping(Life(WORKER, 1, 0), 50.0)) is None
    assert clock.look(stepping(new, 103.5)) == 3.5
    assert not clock.open
    assert clock.look(stepping(new, 103.5)) is None
    assert clock.seconds == {0: 3.5}


def test_the_last_role_to_step_decides():
    clock = RecoveryClock()
    lives = [Life(CHIEF, 2, 0), Life(WORKER, 2, 0)]
    clock.start([incident(100.0)], lives)
    early = stepping(lives[0], 104.0)
    assert clock.look(early) is None
    assert clock.look({**early, **stepping(Life(WORKER, 1, 3), 60.0)}) is None
    assert clock.look({**early, **stepping(lives[1], 109.0)}) == 9.0


def test_a_later_life_than_awaited_counts_as_well():
    clock = RecoveryClock()
    clock.start([incident(100.0)], [Life(WORKER, 1, 1)])
    assert clock.look(stepping(Life(WORKER, 2, 0), 108.0)) == 8.0


def test_recoveries_that_overlap_end_together():
    """A respawn under way is overtaken by a new generation: both last until all step again."""
    clock, first, second = RecoveryClock(), incident(100.0), incident(106.0)
    clock.start([first], [Life(WORKER, 1, 1)])
    both = [Life(CHIEF, 2, 0), Life(WORKER, 2, 0)]
    clock.start([first, second], both)
    assert clock.look(stepping(Life(WORKER, 1, 1), 105.0)) is None
    progress = {**stepping(both[0], 110.0), **stepping(both[1], 112.0)}
    assert clock.look(progress) == 12.0
    assert clock.seconds == {0: 12.0, 1: 6.0}


def test_two_workers_respawned_at_once_end_when_both_step():
    clock, other = RecoveryClock(), TaskKey(Role.WORKER, 1)
    clock.start([incident(100.0)], [Life(WORKER, 1, 1)])
    clock.start([incident(100.0), incident(101.0)], [Life(other, 1, 1)])
    assert clock.look(stepping(Life(other, 1, 1), 104.0)) is None
    progress = {**stepping(Life(other, 1, 1), 104.0), **stepping(Life(WORKER, 1, 1), 103.0)}
    assert clock.look(progress) == 4.0
    assert clock.seconds == {0: 4.0, 1: 3.0}


def test_a_second_recovery_is_measured_by_itself():
    clock = RecoveryClock()
    incidents = [incident(100.0)]
    clock.start(incidents, [Life(WORKER, 1, 1)])
    assert clock.look(stepping(Life(WORKER, 1, 1), 103.0)) == 3.0
    incidents.append(incident(200.0))
    clock.start(incidents, [Life(WORKER, 1, 2)])
    assert clock.look(stepping(Life(WORKER, 1, 1), 103.0)) is None
    assert clock.look(stepping(Life(WORKER, 1, 2), 202.0)) == 2.0
    assert clock.seconds == {0: 3.0, 1: 2.0}


def test_it_counts_from_the_cause_not_from_who_noticed_it():
    death = Failure(key="ps-0", cause=Cause.PROCESS_DEATH, message="died", time=99.0)
    clock, new = RecoveryClock(), Life(WORKER, 2, 0)
    clock.start([incident(100.0, Cause.PEER_LOST, death)], [new])
    assert clock.look(stepping(new, 104.0)) == 5.0
