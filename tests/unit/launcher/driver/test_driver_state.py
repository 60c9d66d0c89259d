"""The run's state machine: every phase, every event, and what holds for any history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfos.fault.failures.record import Cause, Failure, Outcome, first_cause
from tfos.fault.failures.restart_policy import NO_RESTARTS, Incident, Reaction, RestartBudget
from tfos.launcher.driver.events import (
    CancelGroups,
    Decision,
    EndRun,
    Event,
    GroupEnded,
    Halted,
    MembersChanged,
    OutcomePublished,
    Phase,
    ProcessFailed,
    PublishGeneration,
    RerunTask,
    RespawnProcess,
    ResubmitGroup,
    StopExpired,
    StopRun,
    Verdict,
)
from tfos.launcher.driver.state import RunState, transition
from tfos.topology import Life, Role, TaskKey

CHIEF = TaskKey(Role.CHIEF, 0)
WORKERS = (TaskKey(Role.WORKER, 0), TaskKey(Role.WORKER, 1))
WORKER = WORKERS[0]
PS = TaskKey(Role.PS, 0)
ALL = frozenset({CHIEF, *WORKERS, PS})
GROUPS = frozenset({Role.CHIEF, Role.WORKER, Role.PS})
BUDGET = RestartBudget(3, 600.0)


def failure(
    key: TaskKey | str = "driver", cause: Cause = Cause.PROCESS_DEATH, *, time: float = 1.0, **more
) -> Failure:
    return Failure(key=str(key), cause=cause, message=f"{key} failed", time=time, **more)


def lost(*keys: TaskKey, replaced: bool = False, step: int = 9, at: float = 1.0) -> MembersChanged:
    """Return the loss of role hosts, or, where they are `replaced`, of their earlier attempts."""
    members = ALL if replaced else ALL - set(keys)
    gone = {key: failure(key, Cause.INFRASTRUCTURE) for key in keys}
    return MembersChanged(members, gone, step, at)


def failed(life: Life, *, step: int = 9, at: float = 1.0, **more) -> ProcessFailed:
    return ProcessFailed(life, failure(life.key, **more), step, at)


def fresh(
    trainers=frozenset({CHIEF}),
    budget=BUDGET,
    respawning=frozenset({Role.WORKER}),
    gangs=frozenset(),
):
    return RunState(ALL, trainers, GROUPS, respawning, budget, gangs)


def after(*events: Event, state: RunState | None = None) -> RunState:
    state = fresh() if state is None else state
    for event in events:
        state, _ = transition(state, event)
    return state


def training(**given) -> RunState:
    return after(MembersChanged(ALL), state=fresh(**given))


PHASES = {
    Phase.REGISTERING: fresh(),
    Phase.TRAINING: training(),
    Phase.RECOVERING: after(lost(PS), state=training()),
    Phase.STOPPING: after(Halted(Verdict.FAILED, failure()), state=training()),
    Phase.ENDED: after(
        Halted(Verdict.FAILED, failure()), *map(GroupEnded, GROUPS), state=training()
    ),
}
"""How each phase is reached."""

EVENTS = {
    MembersChanged: MembersChanged(ALL),
    ProcessFailed: failed(Life(WORKER, 1, 0)),
    OutcomePublished: OutcomePublished(Outcome(CHIEF)),
    GroupEnded: GroupEnded(Role.PS, failure("ps")),
    Halted: Halted(Verdict.INTERRUPTED, failure()),
    StopExpired: StopExpired(),
}
"""One event of each type: all registered, a worker's death, the trainer done, Spark's failure."""

R, T, C, S, E = Phase
TABLE: dict[tuple[Phase, type], tuple[Phase, list[Decision]]] = {
    (R, MembersChanged): (T, [PublishGeneration(1)]),
    (R, ProcessFailed): (R, []),
    (R, OutcomePublished): (R, []),
    (R, GroupEnded): (S, [StopRun(Verdict.FAILED, "ps failed")]),
    (R, Halted): (S, [StopRun(Verdict.INTERRUPTED, "driver failed")]),
    (R, StopExpired): (R, []),
    (T, MembersChanged): (T, []),
    (T, ProcessFailed): (T, [RespawnProcess(Life(WORKER, 1, 1))]),
    (T, OutcomePublished): (S, [StopRun(Verdict.DONE, "training is done")]),
    (T, GroupEnded): (S, [StopRun(Verdict.FAILED, "ps failed")]),
    (T, Halted): (S, [StopRun(Verdict.INTERRUPTED, "driver failed")]),
    (T, StopExpired): (T, []),
    (C, MembersChanged): (T, [PublishGeneration(2)]),
    (C, ProcessFailed): (C, []),
    (C, OutcomePublished): (S, [StopRun(Verdict.DONE, "training is done")]),
    (C, GroupEnded): (S, [StopRun(Verdict.FAILED, "ps failed")]),
    (C, Halted): (S, [StopRun(Verdict.INTERRUPTED, "driver failed")]),
    (C, StopExpired): (C, []),
    (S, MembersChanged): (S, []),
    (S, ProcessFailed): (S, []),
    (S, OutcomePublished): (S, []),
    (S, GroupEnded): (S, []),
    (S, Halted): (S, []),
    (S, StopExpired): (S, [CancelGroups()]),
    **{(E, kind): (E, []) for kind in EVENTS},
}


def test_the_table_has_every_phase_and_every_event():
    assert set(EVENTS) == set(get_args(Event))
    assert set(TABLE) == set(product(Phase, get_args(Event)))
    assert {phase: state.phase for phase, state in PHASES.items()} == {p: p for p in Phase}


@pytest.mark.parametrize(
    ("phase", "kind"), TABLE, ids=[f"{phase.value}-{kind.__name__}" for phase, kind in TABLE]
)
def test_every_event_in_every_phase(phase, kind):
    state, decisions = transition(PHASES[phase], EVENTS[kind])
    assert (state.phase, list(decisions)) == TABLE[phase, kind]
    if phase is Phase.ENDED:
        assert state is PHASES[phase]


# -- registering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", sorted(ALL))
def test_waits_until_every_role_is_registered(missing):
    state, decisions = transition(fresh(), MembersChanged(ALL - {missing}))
    assert (state.phase, decisions) == (Phase.REGISTERING, ())


def test_a_failure_while_registering_stops_the_run():
    state, decisions = transition(fresh(), OutcomePublished(Outcome(PS, failure=failure(PS))))
    assert (state.phase, state.verdict) == (Phase.STOPPING, Verdict.FAILED)
    assert decisions == (StopRun(Verdict.FAILED, "ps-0 failed"),)


def test_a_host_lost_while_registering_is_run_again_and_is_no_incident():
    state, decisions = transition(fresh(), lost(PS))
    assert decisions == (RerunTask(PS),)
    assert (state.phase, state.incidents) == (Phase.REGISTERING, ())


def test_a_host_already_replaced_is_not_run_again():
    _, decisions = transition(fresh(), lost(PS, replaced=True))
    assert decisions == (PublishGeneration(1),)


def test_without_restarts_nothing_is_run_again():
    state, decisions = transition(fresh(budget=NO_RESTARTS), lost(PS))
    assert (state.phase, decisions) == (Phase.REGISTERING, ())


# -- a training process dies -----------------------------------------------------------------------


def test_a_worker_that_respawns_is_replaced_alone_each_time():
    state = training()
    for respawn in range(3):
        dead = Life(WORKER, 1, respawn)
        event = failed(dead, step=respawn * 10)
        state, decisions = transition(state, event)
        assert decisions == (RespawnProcess(Life(WORKER, 1, respawn + 1)),)
        assert state.phase is Phase.TRAINING
        assert state.incidents[-1] == Incident(
            event.failure, Reaction.RESPAWN, 1, respawn * 10, 1.0
        )
    assert state.life_of(WORKERS[1]) == Life(WORKERS[1], 1, 0)


@pytest.mark.parametrize("key", [CHIEF, PS])
def test_who_does_not_respawn_begins_a_new_generation_at_once(key):
    state, decisions = transition(training(), failed(Life(key, 1, 0)))
    assert decisions == (PublishGeneration(2),)
    assert (state.phase, state.generation) == (Phase.TRAINING, 2)
    (incident,) = state.incidents
    assert (incident.reaction, incident.generation) == (Reaction.NEW_GENERATION, 1)


def test_a_lost_peer_begins_a_new_generation_and_those_who_say_so_later_follow():
    state = training()
    peers = [failed(Life(key, 1, 0), cause=Cause.PEER_LOST) for key in (*WORKERS, CHIEF)]
    death = failed(Life(PS, 1, 0), time=5.0)
    state, decisions = transition(state, peers[0])
    assert decisions == (PublishGeneration(2),)
    for event in (*peers[1:], death):
        state, decisions = transition(state, event)
        assert decisions == ()
    (incident,) = state.incidents
    assert incident.failure is peers[0].failure
    assert incident.cause is death.failure
    assert state.generation == 2


def test_a_new_generation_counts_respawns_and_outcomes_anew():
    workers_train = frozenset({CHIEF, *WORKERS})
    state = training(trainers=workers_train)
    state = after(failed(Life(WORKER, 1, 0)), OutcomePublished(Outcome(CHIEF)), state=state)
    assert state.life_of(WORKER) == Life(WORKER, 1, 1)
    state = after(failed(Life(PS, 1, 0), step=20), state=state)
    assert state.life_of(WORKER) == Life(WORKER, 2, 0)
    assert state.outcomes == {}


@pytest.mark.parametrize(
    "stale", [Life(WORKER, 1, 0), Life(WORKER, 1, 1), Life(CHIEF, 1, 0)], ids=str
)
def test_a_stale_life_decides_nothing_and_stays_with_its_own_generation(stale):
    state = after(
        failed(Life(WORKER, 1, 0)),
        failed(Life(PS, 1, 0), step=20),
        failed(Life(WORKER, 2, 0), step=30),
        state=training(),
    )
    assert [i.generation for i in state.incidents] == [1, 1, 2]
    later, decisions = transition(state, failed(stale, step=40, time=0.5))
    assert decisions == ()
    assert [len(i.followed_by) for i in later.incidents] == [0, 1, 0]
    assert later.incidents[-1].cause.key == str(WORKER)
    assert replace(later, incidents=()) == replace(state, incidents=())


def test_the_failure_of_a_life_yet_to_come_decides_nothing():
    state, decisions = transition(training(), failed(Life(WORKER, 2, 0)))
    assert (state.phase, state.incidents, decisions) == (Phase.TRAINING, (), ())


def test_a_role_that_is_done_cannot_fail_any_more():
    state = after(OutcomePublished(Outcome(WORKER)), state=training())
    assert transition(state, failed(Life(WORKER, 1, 0))) == (state, ())


def test_a_worker_whose_host_is_gone_too_is_not_respawned():
    state = replace(training(), members=ALL - {WORKER})
    state, decisions = transition(state, failed(Life(WORKER, 1, 0)))
    assert state.phase is Phase.RECOVERING
    assert decisions == (RerunTask(WORKER),)


@pytest.mark.parametrize("cause", [Cause.CONFIG, Cause.DATA, Cause.USER_CODE])
def test_what_cannot_get_better_stops_the_run(cause):
    state, decisions = transition(training(), failed(Life(WORKER, 1, 0), cause=cause))
    assert (state.verdict, state.incidents) == (Verdict.FAILED, ())
    assert decisions == (StopRun(Verdict.FAILED, "worker-0 failed"),)


def test_a_stop_says_why_nothing_better_was_done():
    state = training(budget=RestartBudget(1, 60.0))
    state = after(failed(Life(WORKER, 1, 0), step=5, at=100.0), state=state)
    more = {"step": 6, "at": 159.0, "hint": "buy memory"}
    state, _ = transition(state, failed(Life(PS, 1, 0), **more))
    assert state.failures[0].hint == (
        "1 restarts in 60 s are all that --max-restarts 1 allows; buy memory"
    )


# -- a role host is lost ---------------------------------------------------------------------------


def test_a_lost_host_without_restarts_fails_the_run():
    state, decisions = transition(training(budget=NO_RESTARTS), lost(PS, CHIEF))
    assert state.verdict is Verdict.FAILED
    assert decisions == (StopRun(Verdict.FAILED, "chief-0 failed"),)
    assert {f.key for f in state.failures} == {"ps-0", "chief-0"}


def test_a_lost_host_is_run_again_and_all_wait_for_it():
    state, decisions = transition(training(), lost(PS))
    assert (state.phase, decisions) == (Phase.RECOVERING, (RerunTask(PS),))
    state, decisions = transition(state, MembersChanged(ALL))
    assert (state.phase, decisions) == (Phase.TRAINING, (PublishGeneration(2),))


def test_also_of_a_role_that_would_respawn():
    state, decisions = transition(training(), lost(WORKER))
    assert (state.phase, decisions) == (Phase.RECOVERING, (RerunTask(WORKER),))


def test_a_host_seen_lost_once_replaced_begins_the_next_generation_at_once():
    state, decisions = transition(training(), lost(PS, replaced=True))
    assert decisions == (PublishGeneration(2),)
    assert len(state.incidents) == 1


def test_hosts_lost_together_or_meanwhile_are_one_incident():
    state, decisions = transition(training(), lost(PS, WORKER))
    assert decisions == (RerunTask(PS), RerunTask(WORKER))
    state, decisions = transition(
        state, MembersChanged(frozenset(WORKERS), {CHIEF: failure(CHIEF)}, 9, 2.0)
    )
    assert decisions == (RerunTask(CHIEF),)
    (incident,) = state.incidents
    assert [f.key for f in (incident.failure, *incident.followed_by)] == [
        "ps-0",
        "worker-0",
        "chief-0",
    ]


def test_the_last_missing_host_may_come_as_another_is_replaced():
    state = after(lost(PS), state=training())
    _, decisions = transition(state, lost(WORKER, replaced=True))
    assert decisions == (PublishGeneration(2),)


def test_a_host_lost_after_its_role_was_done_is_no_failure_but_the_next_generation_needs_it():
    state = after(OutcomePublished(Outcome(WORKER)), state=training())
    state, decisions = transition(state, lost(WORKER))
    assert (state.phase, decisions) == (Phase.TRAINING, ())
    for event in (failed(Life(PS, 1, 0)), lost(WORKER, PS), lost(PS)):
        gone = sorted(ALL - getattr(event, "members", ALL - {WORKER}))
        recovering, decisions = transition(state, event)
        assert recovering.phase is Phase.RECOVERING
        assert decisions == tuple(map(RerunTask, gone))


# -- a gang is lost --------------------------------------------------------------------------------

RING = frozenset(WORKERS)


def ring(budget=BUDGET) -> RunState:
    """Return a run of workers alone, one gang."""
    group = frozenset({Role.WORKER})
    return RunState(RING, RING, group, frozenset(), budget, group)


def ring_training(**given) -> RunState:
    return after(MembersChanged(RING), state=ring(**given))


def ring_lost(*keys: TaskKey, step: int = 9, at: float = 1.0) -> MembersChanged:
    gone = {key: failure(key, Cause.INFRASTRUCTURE) for key in keys}
    return MembersChanged(RING - gone.keys(), gone, step, at)


def stage_lost(key=WORKERS[1], cause=Cause.INFRASTRUCTURE, **when) -> GroupEnded:
    return GroupEnded(Role.WORKER, failure(key, cause), **{"step": 9, "at": 1.0, **when})


RING_PHASES = {
    Phase.REGISTERING: ring(),
    Phase.TRAINING: ring_training(),
    Phase.RECOVERING: after(ring_lost(WORKER), state=ring_training()),
    Phase.STOPPING: after(Halted(Verdict.FAILED, failure()), state=ring_training()),
    Phase.ENDED: after(
        Halted(Verdict.FAILED, failure()), GroupEnded(Role.WORKER), state=ring_training()
    ),
}
AGAIN, WORKERS_FAILED = ResubmitGroup(Role.WORKER), StopRun(Verdict.FAILED, "worker-1 failed")
RING_TABLE: dict[tuple[Phase, str], tuple[Phase, list[Decision]]] = {
    (R, "cluster"): (R, [AGAIN]),
    (T, "cluster"): (C, [AGAIN]),
    (C, "cluster"): (C, [AGAIN]),
    (S, "cluster"): (E, [EndRun()]),
    (E, "cluster"): (E, []),
    (R, "query"): (E, [WORKERS_FAILED, EndRun()]),
    (T, "query"): (E, [WORKERS_FAILED, EndRun()]),
    (C, "query"): (E, [WORKERS_FAILED, EndRun()]),
    (S, "query"): (E, [EndRun()]),
    (E, "query"): (E, []),
    (R, "nothing"): (R, []),
    (T, "nothing"): (T, []),
    (C, "nothing"): (C, []),
    (S, "nothing"): (E, [EndRun()]),
    (E, "nothing"): (E, []),
    (R, "host lost"): (R, [RerunTask(WORKER)]),
    (T, "host lost"): (C, [RerunTask(WORKER)]),
    (C, "host lost"): (C, [RerunTask(WORKER)]),
    (S, "host lost"): (S, []),
    (E, "host lost"): (E, []),
}
RING_EVENTS = {
    "cluster": stage_lost(),
    "query": stage_lost(cause=Cause.USER_CODE),
    "nothing": GroupEnded(Role.WORKER),
    "host lost": ring_lost(WORKER),
}


@pytest.mark.parametrize(("phase", "what"), RING_TABLE)
def test_every_end_of_a_gangs_job_in_every_phase(phase, what):
    assert RING_PHASES[phase].phase is phase
    state, decisions = transition(RING_PHASES[phase], RING_EVENTS[what])
    assert (state.phase, list(decisions)) == RING_TABLE[phase, what]


def test_the_ring_table_has_every_phase_and_every_event():
    assert set(RING_TABLE) == set(product(Phase, RING_EVENTS))


def test_a_lost_gang_is_one_incident_and_the_next_generation_begins_with_all_its_hosts():
    state, decisions = transition(ring_training(), stage_lost())
    assert decisions == (AGAIN,)
    assert (state.members, state.open_groups) == (frozenset(), frozenset({Role.WORKER}))
    (incident,) = state.incidents
    assert (incident.failure.key, incident.generation, incident.step) == ("worker-1", 1, 9)
    state, decisions = transition(state, MembersChanged(frozenset({WORKER})))
    assert decisions == ()
    state, decisions = transition(state, MembersChanged(RING))
    assert (state.phase, decisions) == (Phase.TRAINING, (PublishGeneration(2),))


def test_the_end_of_a_gang_whose_host_was_seen_lost_follows_from_that():
    state = after(ring_lost(WORKER), stage_lost(), state=ring_training())
    (incident,) = state.incidents
    assert [f.key for f in (incident.failure, *incident.followed_by)] == ["worker-0", "worker-1"]
    # What it costs it costs once: the next submission's end is a failure of its own.
    state, decisions = transition(state, stage_lost(at=2.0))
    assert (len(state.incidents), decisions) == (2, (AGAIN,))


def test_a_lost_host_that_comes_back_by_itself_has_answered_for_nothing_later():
    state = after(ring_lost(WORKER), MembersChanged(RING), state=ring_training())
    assert (state.phase, state.generation) == (Phase.TRAINING, 2)
    state, decisions = transition(state, stage_lost(at=2.0))
    assert (len(state.incidents), decisions) == (2, (AGAIN,))


@pytest.mark.parametrize("phase", [Phase.REGISTERING, Phase.TRAINING, Phase.RECOVERING])
def test_a_gang_is_submitted_as_often_as_the_budget_allows(phase):
    state = replace(RING_PHASES[phase], budget=RestartBudget(3, 60.0), failing=frozenset())
    for at in range(3 - len(state.incidents)):
        state, decisions = transition(state, stage_lost(at=2.0 + at))
        assert decisions == (AGAIN,)
    state, decisions = transition(state, stage_lost(at=9.0))
    assert (state.phase, state.verdict) == (Phase.ENDED, Verdict.FAILED)
    assert "3 restarts in 60 s" in state.failures[0].hint


def test_without_restarts_a_lost_gang_ends_the_run():
    state, decisions = transition(ring_training(budget=NO_RESTARTS), stage_lost())
    assert decisions == (WORKERS_FAILED, EndRun())
    assert state.verdict is Verdict.FAILED


def test_a_rank_whose_process_dies_begins_a_new_generation_in_place():
    _, decisions = transition(ring_training(), failed(Life(WORKER, 1, 0)))
    assert decisions == (PublishGeneration(2),)


def test_others_that_were_let_go_are_run_again_with_a_lost_gang():
    state = training(gangs=frozenset({Role.WORKER}))
    state = after(OutcomePublished(Outcome(PS)), lost(PS), state=state)
    state, decisions = transition(state, stage_lost())
    assert decisions == (AGAIN, RerunTask(PS))
    assert state.members == {CHIEF}


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.RECOVERING])
def test_the_run_is_done_when_the_last_trainer_is(phase):
    state = training(trainers=frozenset({CHIEF, *WORKERS}))
    if phase is Phase.RECOVERING:
        state = after(lost(PS), state=state)
    for key in WORKERS:
        state, decisions = transition(state, OutcomePublished(Outcome(key)))
        assert (state.phase, decisions) == (phase, ())
    state, decisions = transition(state, OutcomePublished(Outcome(CHIEF)))
    assert state.verdict is Verdict.DONE
    assert decisions == (StopRun(Verdict.DONE, "training is done"),)


def test_a_server_that_ends_early_does_not_finish_the_run():
    state, decisions = transition(training(), OutcomePublished(Outcome(PS)))
    assert (state.phase, decisions) == (Phase.TRAINING, ())


def test_the_first_outcome_of_a_role_stands():
    state = replace(training(), outcomes={CHIEF: Outcome(CHIEF)})
    bad = OutcomePublished(Outcome(CHIEF, failure=failure(CHIEF)))
    assert transition(state, bad) == (state, ())


def test_later_failures_are_kept_as_consequences():
    state = PHASES[Phase.STOPPING]
    state, decisions = transition(state, OutcomePublished(Outcome(PS, failure=failure(PS))))
    assert decisions == ()
    state, decisions = transition(state, failed(Life(WORKER, 1, 0)))
    assert decisions == ()
    state, decisions = transition(state, GroupEnded(Role.PS, failure("ps")))
    assert [f.key for f in state.failures] == ["driver", "ps-0", "worker-0", "ps"]


def test_servers_may_complain_after_the_end():
    state = after(OutcomePublished(Outcome(CHIEF)), state=training())
    complaints = (
        OutcomePublished(Outcome(PS, failure=failure(PS))),
        failed(Life(WORKER, 1, 0)),
        lost(WORKER),
        GroupEnded(Role.PS, failure("ps")),
    )
    state = after(*complaints, state=state)
    assert (state.verdict, state.failures, state.incidents) == (Verdict.DONE, (), ())


@pytest.mark.parametrize("phase", [Phase.REGISTERING, Phase.TRAINING, Phase.RECOVERING])
def test_a_group_that_ends_without_a_failure_stops_nothing(phase):
    state, decisions = transition(PHASES[phase], GroupEnded(Role.PS))
    assert (state.phase, decisions) == (phase, ())
    assert state.open_groups == GROUPS - {Role.PS}


def test_ends_when_the_last_group_has_ended():
    state = replace(PHASES[Phase.STOPPING], open_groups=frozenset({Role.PS}))
    state, decisions = transition(state, GroupEnded(Role.PS))
    assert (state.phase, decisions) == (Phase.ENDED, (EndRun(),))


def test_a_stop_with_no_group_left_ends_at_once():
    state = replace(training(), open_groups=frozenset())
    state, decisions = transition(state, Halted(Verdict.FAILED, failure()))
    assert state.phase is Phase.ENDED
    assert decisions == (StopRun(Verdict.FAILED, "driver failed"), EndRun())


def test_cancels_groups_that_do_not_stop_and_then_gives_them_up():
    state, decisions = transition(PHASES[Phase.STOPPING], StopExpired())
    assert decisions == (CancelGroups(),)
    state, decisions = transition(state, StopExpired())
    assert (state.phase, decisions) == (Phase.ENDED, (EndRun(),))


def test_what_spark_says_of_cancelled_groups_is_no_failure():
    state = replace(PHASES[Phase.STOPPING], cancelled=True)
    state, _ = transition(state, GroupEnded(Role.PS, failure("ps")))
    assert [f.key for f in state.failures] == ["driver"]


@pytest.mark.parametrize("verdict", [Verdict.TIMED_OUT, Verdict.INTERRUPTED, Verdict.FAILED])
@pytest.mark.parametrize("phase", [Phase.REGISTERING, Phase.TRAINING, Phase.RECOVERING])
def test_halting_stops_from_any_phase(phase, verdict):
    state, decisions = transition(PHASES[phase], Halted(verdict, failure()))
    assert (state.phase, state.verdict) == (Phase.STOPPING, verdict)
    assert decisions == (StopRun(verdict, "driver failed"),)


def test_a_second_halt_does_not_change_the_verdict():
    halted = Halted(Verdict.INTERRUPTED, failure())
    state, decisions = transition(PHASES[Phase.STOPPING], halted)
    assert (state.verdict, decisions) == (Verdict.FAILED, ())


def test_a_lost_peer_is_a_consequence_even_when_heard_first():
    peer = failure("chief-0", Cause.PEER_LOST, time=1.0)
    death = failure("ps-0", time=2.0)
    assert first_cause((peer, death)) is death


# -- any history -----------------------------------------------------------------------------------


@dataclass
class History:
    """What a sequence of events did: each with the states around it and what was decided."""

    state: RunState
    taken: list[tuple[RunState, Event, RunState, tuple[Decision, ...]]] = field(
        default_factory=list
    )

    def follow(self, event: Event) -> None:
        before = self.state
        self.state, decisions = transition(before, event)
        self.taken.append((before, event, self.state, decisions))

    def decisions(self, kind: type) -> list:
        return [d for *_, taken in self.taken for d in taken if isinstance(d, kind)]


KEYS = st.sampled_from(sorted(ALL))
# What restarts can answer comes often, what ends a run seldom: histories are to be long.
CAUSES = st.sampled_from([*[Cause.PROCESS_DEATH] * 8, *[Cause.PEER_LOST] * 4, *Cause])
FAILURES = st.builds(failure, KEYS, CAUSES, step=st.integers(-1, 5), time=st.floats(0, 9))
KINDS = [
    *[ProcessFailed] * 12,
    *[MembersChanged] * 12,
    *[OutcomePublished] * 3,
    *[GroupEnded] * 2,
    *get_args(Event),
]


@st.composite
def events(draw, state: RunState, at: float, step: int) -> Event:
    """Draw what may be heard in a state: likely things and absurd ones."""
    kind = draw(st.sampled_from(KINDS))
    if kind is ProcessFailed:
        key, now = draw(KEYS), draw(st.integers(0, 3)) > 0
        stale = Life(key, draw(st.integers(0, 4)), draw(st.integers(0, 4)))
        died = replace(draw(FAILURES), key=str(key))
        return ProcessFailed(state.life_of(key) if now else stale, died, step, at)
    if kind is MembersChanged:
        members = draw(st.one_of(st.just(ALL), st.just(ALL), st.frozensets(KEYS)))
        gone = draw(st.sets(KEYS, max_size=2))
        vanished = {key: failure(key, Cause.INFRASTRUCTURE) for key in gone}
        return MembersChanged(members, vanished, step, at)
    if kind is OutcomePublished:
        died = draw(FAILURES) if draw(st.integers(0, 5)) == 0 else None
        return OutcomePublished(Outcome(draw(KEYS), died))
    if kind is GroupEnded:
        spark = failure("spark", Cause.INFRASTRUCTURE)
        said = draw(st.sampled_from([None, failure("spark"), spark, spark, spark]))
        return GroupEnded(draw(st.sampled_from(sorted(GROUPS))), said, step, at)
    if kind is Halted:
        verdicts = (Verdict.FAILED, Verdict.TIMED_OUT, Verdict.INTERRUPTED)
        return Halted(draw(st.sampled_from(verdicts)), failure())
    return StopExpired()


@st.composite
def histories(draw, kinds: Sequence[type] = get_args(Event)) -> History:
    """Draw a run and what happens in it; only events of `kinds` count."""
    budget = RestartBudget(
        draw(st.sampled_from([3, 9, 2, 1, 0])), draw(st.sampled_from([1.0, 3.0, 1e9]))
    )
    trainers = draw(st.sampled_from([frozenset({CHIEF}), frozenset({CHIEF, *WORKERS})]))
    respawning = draw(st.sampled_from([frozenset({Role.WORKER}), GROUPS, frozenset()]))
    gangs = draw(st.sampled_from([frozenset(), frozenset({Role.WORKER}), GROUPS]))
    history = History(fresh(trainers, budget, respawning, gangs))
    if draw(st.integers(0, 9)) > 0:
        history.follow(MembersChanged(ALL))
    at, step = 0.0, -1
    for _ in range(draw(st.integers(1, 15))):
        at += draw(st.sampled_from([0.0, 0.5, 2.0]))
        step += draw(st.sampled_from([0, 1, 1, 1]))
        event = draw(events(history.state, at, step))
        if isinstance(event, tuple(kinds)):
            history.follow(event)
    return history


# Each law is an assertion about a whole history; one test holds all of them.


def generations_count_up_by_one_and_begin_with_every_role_there(history: History) -> None:
    numbers = [d.number for d in history.decisions(PublishGeneration)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert history.state.generation == len(numbers)
    for before, _, now, decisions in history.taken:
        published = [d for d in decisions if isinstance(d, PublishGeneration)]
        assert len(published) == now.generation - before.generation <= 1
        if published:
            assert now.members >= now.expected
            assert now.phase is Phase.TRAINING
            assert (now.respawns, now.outcomes) == ({}, {})


def a_run_is_stopped_once_and_nothing_is_decided_after_its_end(history: History) -> None:
    flat = [d for *_, decisions in history.taken for d in decisions]
    kinds = [type(d) for d in flat]
    assert kinds.count(StopRun) == (history.state.verdict is not None)
    assert kinds.count(CancelGroups) <= 1
    assert kinds.count(EndRun) == (history.state.phase is Phase.ENDED)
    assert EndRun not in kinds[:-1]
    if StopRun in kinds:
        assert set(kinds[kinds.index(StopRun) + 1 :]) <= {CancelGroups, EndRun}
    stopped = history.state.phase in (Phase.STOPPING, Phase.ENDED)
    assert stopped == (history.state.verdict is not None)


def only_the_life_that_failed_is_respawned_and_only_where_that_can_be(history: History) -> None:
    for before, event, now, decisions in history.taken:
        for decision in decisions:
            if isinstance(decision, RespawnProcess):
                assert isinstance(event, ProcessFailed)
                dead, new = event.life, decision.life
                assert dead == before.life_of(dead.key)
                assert new == (dead.key, dead.generation, dead.respawn + 1)
                assert new == now.life_of(new.key)
                assert before.phase is now.phase is Phase.TRAINING
                assert new.key in before.members
                assert new.key.role in before.respawning


def a_stale_life_never_causes_a_decision(history: History) -> None:
    for before, event, now, decisions in history.taken:
        if isinstance(event, ProcessFailed) and event.life != before.life_of(event.life.key):
            assert decisions == ()
            assert (now.phase, now.generation, now.respawns) == (
                before.phase,
                before.generation,
                before.respawns,
            )
            assert len(now.incidents) == len(before.incidents)


def no_window_holds_more_restarts_than_allowed(history: History) -> None:
    budget = history.state.budget
    instants = [incident.at for incident in history.state.incidents]
    for end in instants:
        assert sum(end - budget.window_s < at <= end for at in instants) <= budget.max_restarts


def every_incident_is_one_respawn_or_one_generation_that_comes_or_was_on_its_way(
    history: History,
) -> None:
    """The law of incidents.

    Respawns ordered are the incidents answered so. The others are the generations published beyond
    the first, and one more while the next is being recovered to, or if the run was stopped then:
    whatever else fails meanwhile follows from that one, but for gangs submitted again meanwhile.
    """
    reactions = [incident.reaction for incident in history.state.incidents]
    assert reactions.count(Reaction.RESPAWN) == len(history.decisions(RespawnProcess))
    phases = [state.phase for *_, state, _ in history.taken]
    stopped = (Phase.STOPPING, Phase.ENDED)
    unstopped = [phase for phase in phases if phase not in stopped]
    on_its_way = bool(unstopped) and unstopped[-1] is Phase.RECOVERING
    published = len(history.decisions(PublishGeneration))
    meanwhile = sum(
        isinstance(d, ResubmitGroup) and d.role not in before.failing
        for before, *_, decisions in history.taken
        for d in decisions
        if before.phase in (Phase.REGISTERING, Phase.RECOVERING)
    )
    begun = max(0, published - 1) + on_its_way
    assert reactions.count(Reaction.NEW_GENERATION) == begun + meanwhile
    assert len(reactions) == sum(reactions.count(r) for r in Reaction if r is not Reaction.STOP)


def incidents_are_only_ever_added_and_keep_their_place(history: History) -> None:
    for before, _, now, _ in history.taken:
        assert len(now.incidents) - len(before.incidents) in (0, 1)
        for old, new in zip(before.incidents, now.incidents, strict=False):
            assert replace(new, followed_by=()) == replace(old, followed_by=())
            assert new.followed_by[: len(old.followed_by)] == old.followed_by
    generations = [incident.generation for incident in history.state.incidents]
    assert all(a <= b for a, b in pairwise(generations))


def only_hosts_that_are_missing_are_run_again_and_never_without_restarts(history: History) -> None:
    for _, _, now, decisions in history.taken:
        again = {d.key for d in decisions if isinstance(d, RerunTask)}
        assert not again & now.members
        assert not (again and history.state.budget.max_restarts == 0)
        if now.phase is Phase.RECOVERING:
            assert not now.members >= now.expected


def a_recovery_waits_only_for_hosts_that_were_told_to_run_again(history: History) -> None:
    for before, _, now, decisions in history.taken:
        if before.phase is Phase.TRAINING and now.phase is Phase.RECOVERING:
            told = {d.key for d in decisions if isinstance(d, RerunTask)}
            again = {d.role for d in decisions if isinstance(d, ResubmitGroup)}
            told |= {key for key in now.expected if key.role in again}
            assert told == now.expected - now.members


def a_gang_comes_again_whenever_the_cluster_ends_its_job_or_the_run_ends(history: History) -> None:
    for before, event, now, decisions in history.taken:
        again = [d.role for d in decisions if isinstance(d, ResubmitGroup)]
        lost = (
            isinstance(event, GroupEnded)
            and event.role in before.gangs & before.open_groups
            and event.failure is not None
            and event.failure.cause is Cause.INFRASTRUCTURE
            and before.phase not in (Phase.STOPPING, Phase.ENDED)
        )
        if lost and now.phase not in (Phase.STOPPING, Phase.ENDED):
            assert again == [event.role]
            assert now.open_groups == before.open_groups
            assert not any(key.role is event.role for key in now.members)
            assert now.phase in (Phase.REGISTERING, Phase.RECOVERING)
            assert history.state.budget.max_restarts > 0
        else:
            assert again == []


LAWS = (
    generations_count_up_by_one_and_begin_with_every_role_there,
    a_run_is_stopped_once_and_nothing_is_decided_after_its_end,
    only_the_life_that_failed_is_respawned_and_only_where_that_can_be,
    a_stale_life_never_causes_a_decision,
    no_window_holds_more_restarts_than_allowed,
    every_incident_is_one_respawn_or_one_generation_that_comes_or_was_on_its_way,
    incidents_are_only_ever_added_and_keep_their_place,
    only_hosts_that_are_missing_are_run_again_and_never_without_restarts,
    a_recovery_waits_only_for_hosts_that_were_told_to_run_again,
    a_gang_comes_again_whenever_the_cluster_ends_its_job_or_the_run_ends,
)


@settings(max_examples=500)
@given(histories())
def test_the_laws_hold_for_any_history(history):
    for law in LAWS:
        law(history)


@settings(max_examples=150)
@given(histories(), st.permutations(sorted(GROUPS)))
def test_a_stop_ends_once_every_group_has_or_its_time_is_up_twice(history, roles):
    halted = Halted(Verdict.INTERRUPTED, failure())
    assert after(halted, StopExpired(), StopExpired(), state=history.state).phase is Phase.ENDED
    assert after(halted, *map(GroupEnded, roles), state=history.state).phase is Phase.ENDED
    assert after(*map(GroupEnded, roles), halted, state=history.state).phase is Phase.ENDED


@settings(max_examples=150)
@given(histories((MembersChanged, ProcessFailed, StopExpired)), st.data())
def test_trainers_that_are_all_done_end_the_run_well_whatever_was_answered_before(history, data):
    if history.state.phase is Phase.REGISTERING:
        history.follow(MembersChanged(ALL))
    answered = history.state.verdict is None
    for key in data.draw(st.permutations(sorted(history.state.trainers))):
        history.follow(OutcomePublished(Outcome(key)))
    for role in GROUPS:
        history.follow(GroupEnded(role))
    assert history.state.phase is Phase.ENDED
    assert (history.state.verdict is Verdict.DONE) == answered
    assert (history.state.failures == ()) == answered


@pytest.mark.parametrize("phase", [Phase.REGISTERING, Phase.TRAINING, Phase.RECOVERING])
def test_a_role_that_left_without_being_done_does_not_end_training(phase):
    state = replace(training(), phase=phase)
    assert transition(state, OutcomePublished(Outcome(CHIEF, done=False))) == (state, ())
