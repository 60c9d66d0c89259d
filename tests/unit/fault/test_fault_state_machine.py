"""The run's state machine: every state, every event, and what holds for any history."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfos.fault.failure import Cause, Failure, Outcome
from tfos.fault.state_machine import (
    CancelGroups,
    EndRun,
    GroupEnded,
    Halted,
    MembersChanged,
    OutcomePublished,
    Phase,
    PublishGeneration,
    RunState,
    StopExpired,
    StopRun,
    Verdict,
    first_cause,
    transition,
)
from tfos.topology import Role, TaskKey

CHIEF = TaskKey(Role.CHIEF, 0)
WORKERS = (TaskKey(Role.WORKER, 0), TaskKey(Role.WORKER, 1))
PS = TaskKey(Role.PS, 0)
ALL = frozenset({CHIEF, *WORKERS, PS})
GROUPS = frozenset({Role.CHIEF, Role.WORKER, Role.PS})


def failure(key: TaskKey | str = "driver", *, time: float = 1.0, cause: Cause = Cause.USER_CODE):
    return Failure(key=str(key), cause=cause, message=f"{key} failed", time=time)


def fresh(trainers=frozenset({CHIEF})) -> RunState:
    return RunState(expected=ALL, trainers=trainers, open_groups=GROUPS)


def training(**changes) -> RunState:
    state, _ = transition(fresh(), MembersChanged(ALL))
    return replace(state, **changes)


def stopping(verdict: Verdict = Verdict.FAILED, **changes) -> RunState:
    state, _ = transition(training(), Halted(verdict, failure()))
    return replace(state, **changes)


def test_waits_until_every_role_is_registered():
    state, decisions = transition(fresh(), MembersChanged(ALL - {PS}))
    assert (state.phase, decisions) == (Phase.REGISTERING, ())


def test_freezes_generation_one_when_all_are_there():
    state, decisions = transition(fresh(), MembersChanged(ALL))
    assert state.phase is Phase.TRAINING
    assert decisions == (PublishGeneration(1),)


def test_a_failure_while_registering_stops_the_run():
    state, decisions = transition(fresh(), OutcomePublished(Outcome(PS, failure=failure(PS))))
    assert (state.phase, state.verdict) == (Phase.STOPPING, Verdict.FAILED)
    assert decisions == (StopRun(Verdict.FAILED, "ps-0 failed"),)


def test_the_run_is_done_when_the_last_trainer_is():
    workers_train = frozenset({CHIEF, *WORKERS})
    state = training(trainers=workers_train)
    for key in WORKERS:
        state, decisions = transition(state, OutcomePublished(Outcome(key)))
        assert decisions == ()
    state, decisions = transition(state, OutcomePublished(Outcome(CHIEF)))
    assert state.verdict is Verdict.DONE
    assert decisions == (StopRun(Verdict.DONE, "training is done"),)


def test_a_server_that_ends_early_does_not_finish_the_run():
    state, decisions = transition(training(), OutcomePublished(Outcome(PS)))
    assert (state.phase, decisions) == (Phase.TRAINING, ())


def test_a_vanished_host_fails_the_run():
    state, decisions = transition(
        training(), MembersChanged(ALL - {PS}, {PS: failure(PS, cause=Cause.INFRASTRUCTURE)})
    )
    assert state.verdict is Verdict.FAILED
    assert decisions == (StopRun(Verdict.FAILED, "ps-0 failed"),)


def test_a_host_that_left_after_its_outcome_is_no_failure():
    state = training(outcomes={PS: Outcome(PS)})
    state, decisions = transition(state, MembersChanged(ALL - {PS}, {PS: failure(PS)}))
    assert (state.phase, decisions) == (Phase.TRAINING, ())


def test_the_first_outcome_of_a_role_stands():
    state = training(outcomes={CHIEF: Outcome(CHIEF)})
    after, decisions = transition(state, OutcomePublished(Outcome(CHIEF, failure=failure(CHIEF))))
    assert (after, decisions) == (state, ())


def test_later_failures_are_kept_as_consequences():
    state, decisions = transition(
        stopping(), OutcomePublished(Outcome(PS, failure=failure(PS, time=9.0)))
    )
    assert [f.key for f in state.failures] == ["driver", "ps-0"]
    assert decisions == ()


def test_servers_may_complain_after_the_end():
    state, _ = transition(training(), OutcomePublished(Outcome(CHIEF)))
    state, decisions = transition(state, OutcomePublished(Outcome(PS, failure=failure(PS))))
    assert (state.failures, decisions) == ((), ())


def test_spark_losing_a_group_fails_the_run():
    state, decisions = transition(training(), GroupEnded(Role.PS, failure("ps")))
    assert state.verdict is Verdict.FAILED
    assert decisions == (StopRun(Verdict.FAILED, "ps failed"),)


def test_ends_when_the_last_group_has_ended():
    state = stopping(open_groups=frozenset({Role.PS}))
    state, decisions = transition(state, GroupEnded(Role.PS))
    assert (state.phase, decisions) == (Phase.ENDED, (EndRun(),))


def test_cancels_groups_that_do_not_stop_and_then_gives_them_up():
    state, decisions = transition(stopping(), StopExpired())
    assert decisions == (CancelGroups(),)
    state, decisions = transition(state, StopExpired())
    assert (state.phase, decisions) == (Phase.ENDED, (EndRun(),))


def test_what_spark_says_of_cancelled_groups_is_no_failure():
    state = stopping(cancelled=True)
    state, _ = transition(state, GroupEnded(Role.PS, failure("ps")))
    assert [f.key for f in state.failures] == ["driver"]


@pytest.mark.parametrize("verdict", [Verdict.TIMED_OUT, Verdict.INTERRUPTED, Verdict.FAILED])
@pytest.mark.parametrize("state", [fresh(), training()], ids=["registering", "training"])
def test_halting_stops_from_any_phase(state, verdict):
    state, decisions = transition(state, Halted(verdict, failure()))
    assert (state.phase, state.verdict) == (Phase.STOPPING, verdict)
    assert decisions == (StopRun(verdict, "driver failed"),)


def test_a_second_halt_does_not_change_the_verdict():
    state, decisions = transition(stopping(), Halted(Verdict.INTERRUPTED, failure()))
    assert (state.verdict, decisions) == (Verdict.FAILED, ())


def test_a_lost_peer_is_a_consequence_even_when_heard_first():
    peer = failure("chief-0", time=1.0, cause=Cause.PEER_LOST)
    death = failure("ps-0", time=2.0, cause=Cause.PROCESS_DEATH)
    assert first_cause((peer, death)) is death


KEYS = st.sampled_from(sorted(ALL))
EVENTS = st.one_of(
    st.builds(
        MembersChanged,
        st.frozensets(KEYS),
        st.dictionaries(KEYS, KEYS.map(failure), max_size=2),
    ),
    KEYS.map(lambda key: OutcomePublished(Outcome(key))),
    KEYS.map(lambda key: OutcomePublished(Outcome(key, failure=failure(key)))),
    st.sampled_from(sorted(GROUPS)).map(GroupEnded),
    st.sampled_from(sorted(GROUPS)).map(lambda role: GroupEnded(role, failure(role))),
    st.sampled_from([Verdict.FAILED, Verdict.TIMED_OUT, Verdict.INTERRUPTED]).map(
        lambda verdict: Halted(verdict, failure())
    ),
    st.just(StopExpired()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_invariants_hold_for_any_history(events):
    state, taken = fresh(), []
    for event in events:
        was_ended = state.phase is Phase.ENDED
        state, decisions = transition(state, event)
        assert not (was_ended and decisions)
        taken.extend(decisions)
    kinds = [type(decision) for decision in taken]
    assert kinds.count(StopRun) <= 1
    assert kinds.count(EndRun) == (state.phase is Phase.ENDED)
    numbers = [d.number for d in taken if isinstance(d, PublishGeneration)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert (state.verdict is None) == (state.phase in (Phase.REGISTERING, Phase.TRAINING))
    # Whatever happened, time ends the run: nobody waits for ever for a group.
    for event in (Halted(Verdict.INTERRUPTED, failure()), StopExpired(), StopExpired()):
        state, _ = transition(state, event)
    assert state.phase is Phase.ENDED
