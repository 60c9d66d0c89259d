"""What answers a failure: each rule, its boundary and its words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfos import wire
from tfos.fault.failures.record import Cause, Failure
from tfos.fault.failures.restart_policy import NO_RESTARTS, Incident, Reaction, RestartBudget, react

BUDGET = RestartBudget(3, 600.0)
NOW = 10_000.0


def failure(key="worker-0", cause=Cause.PROCESS_DEATH, *, step=9, time=1.0) -> Failure:
    return Failure(key=key, cause=cause, message=f"{key} died", time=time, step=step)


def incident(key="ps-0", *, step=0, at=NOW, cause=Cause.PROCESS_DEATH) -> Incident:
    return Incident(failure(key, cause), Reaction.NEW_GENERATION, 1, step, at)


def answer(given=None, *, respawns=False, step=9, at=NOW, incidents=(), budget=BUDGET):
    found = failure() if given is None else given
    return react(found, respawns=respawns, step=step, at=at, incidents=incidents, budget=budget)


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("respawns", [True, False])
def test_every_cause_has_its_answer(cause, respawns):
    replaced = Reaction.RESPAWN if respawns else Reaction.NEW_GENERATION
    expected = {
        Cause.USER_CODE: replaced,
        Cause.PROCESS_DEATH: replaced,
        Cause.INFRASTRUCTURE: replaced,
        Cause.STALLED: replaced,
        # Whoever lost a peer is alive: it is the peer that has to come back.
        Cause.PEER_LOST: Reaction.NEW_GENERATION,
        Cause.DATA: Reaction.STOP,
        Cause.CONFIG: Reaction.STOP,
        Cause.MEMORY: Reaction.STOP,
        Cause.STORAGE: Reaction.STOP,
        Cause.TIMEOUT: Reaction.STOP,
        Cause.INTERRUPTED: Reaction.STOP,
    }
    assert answer(failure(cause=cause), respawns=respawns) == (expected[cause], "")


@pytest.mark.parametrize(
    ("step", "expected"),
    [(-1, Reaction.STOP), (0, Reaction.STOP), (1, Reaction.NEW_GENERATION)],
)
def test_the_users_code_that_fails_before_its_first_step_would_fail_again(step, expected):
    assert answer(failure(cause=Cause.USER_CODE, step=step)) == (expected, "")


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("respawns", [True, False])
@pytest.mark.parametrize("step", [-1, 0, 9])
def test_a_lasting_cause_is_not_met_again(cause, respawns, step):
    given = replace(failure(cause=cause, step=step), lasting=True)
    assert answer(given, respawns=respawns, step=step) == (Reaction.STOP, "")


@pytest.mark.parametrize("cause", [Cause.PROCESS_DEATH, Cause.STALLED, Cause.PEER_LOST])
def test_others_may_fail_before_their_first_step(cause):
    assert answer(failure(cause=cause, step=-1), step=-1)[0] is Reaction.NEW_GENERATION


@pytest.mark.parametrize("cause", Cause)
def test_without_a_budget_the_first_failure_stops(cause):
    assert answer(failure(cause=cause), budget=NO_RESTARTS) == (Reaction.STOP, "")


@pytest.mark.parametrize(("step", "stops"), [(6, True), (7, True), (8, False)])
def test_failing_again_without_getting_past_the_step_stops(step, stops):
    reaction, why = answer(step=step, incidents=[incident("worker-0", step=7)])
    assert (reaction is Reaction.STOP) == stops
    assert why == (
        f"it failed again without getting past step {step}: starting it once more would end the "
        "same way"
        if stops
        else ""
    )


@pytest.mark.parametrize(("message", "stops"), [("ValueError: x", True), ("ValueError: y", False)])
def test_the_users_error_is_the_same_whichever_rank_meets_it(message, stops):
    def raised(key, message):
        return Failure(key=key, cause=Cause.USER_CODE, message=message, time=1.0, step=9)

    before = Incident(raised("worker-0", "ValueError: x"), Reaction.NEW_GENERATION, 1, 9, NOW)
    reaction, _ = answer(raised("worker-1", message), incidents=[before])
    assert (reaction is Reaction.STOP) == stops


def test_before_the_first_step_it_is_called_step_0():
    given = failure(step=-1)
    _, why = answer(given, step=-1, incidents=[incident("worker-0", step=-1)])
    assert "past step 0:" in why


@pytest.mark.parametrize(
    ("given", "before"),
    [
        (failure(), [incident("worker-1", step=9)]),
        (failure(), [incident("worker-0", step=9), incident("worker-1", step=9)]),
        (failure(cause=Cause.INFRASTRUCTURE), [incident("worker-0", step=9)]),
        (failure(), [incident("worker-0", step=9, cause=Cause.INFRASTRUCTURE)]),
    ],
    ids=["another role", "another role since", "the cluster's doing", "the cluster's doing before"],
)
def test_what_says_nothing_about_the_step_is_not_failing_again(given, before):
    assert answer(given, incidents=before) == (Reaction.NEW_GENERATION, "")


def test_the_budget_is_spent_by_the_last_restart_it_allows():
    spent = [incident(at=NOW - 10), incident(at=NOW - 20)]
    assert answer(incidents=spent, budget=RestartBudget(3, 60.0))[0] is Reaction.NEW_GENERATION
    assert answer(incidents=spent, budget=RestartBudget(2, 60.0)) == (
        Reaction.STOP,
        "2 restarts in 60 s are all that --max-restarts 2 allows",
    )


@pytest.mark.parametrize(("ago", "counts"), [(0.0, True), (59.9, True), (60.0, False)])
def test_the_window_slides(ago, counts):
    before = [incident(at=NOW - ago)]
    reaction, _ = answer(incidents=before, budget=RestartBudget(1, 60.0))
    assert (reaction is Reaction.STOP) == counts


def test_a_clock_set_back_frees_no_restart():
    before = [incident(at=NOW + 3600)]
    assert answer(incidents=before, budget=RestartBudget(1, 60.0))[0] is Reaction.STOP


@given(
    st.lists(st.floats(0, 100), max_size=30),
    st.integers(0, 5),
    st.sampled_from([0.5, 3.0, 40.0]),
)
def test_no_window_ever_holds_more_restarts_than_allowed(waits, allowed, window_s):
    budget, taken, at = RestartBudget(allowed, window_s), [], 0.0
    for number, wait in enumerate(waits):
        at += wait
        reaction, why = answer(step=number, at=at, incidents=taken, budget=budget)
        if reaction is not Reaction.STOP:
            taken.append(incident(step=number, at=at))
        elif allowed:
            assert "--max-restarts" in why
    for end in taken:
        inside = [each for each in taken if end.at - window_s < each.at <= end.at]
        assert len(inside) <= allowed


# -- incidents -------------------------------------------------------------------------------------


def test_the_cause_comes_first_in_the_record_and_all_failures_are_in_it():
    peer = failure("chief-0", Cause.PEER_LOST, time=1.0)
    death, late = failure("ps-0", time=3.0), failure("worker-0", time=4.0)
    given = Incident(peer, Reaction.NEW_GENERATION, 2, 41, 5.0, (late, death))
    assert given.cause is death
    record = json.loads(json.dumps(wire.to_json(given.record(1.5))))
    assert [f["key"] for f in record.pop("failures")] == ["ps-0", "chief-0", "worker-0"]
    assert record == {
        "reaction": "new_generation",
        "generation": 2,
        "step": 41,
        "at": 5.0,
        "recovered_s": 1.5,
    }


@pytest.mark.parametrize(
    ("reaction", "step", "line"),
    [
        (Reaction.RESPAWN, 41, "step 41, ps-0: ps-0 died -> its process was replaced"),
        (
            Reaction.NEW_GENERATION,
            -1,
            "step 0, ps-0: ps-0 died -> all started again from the latest checkpoint",
        ),
    ],
)
def test_a_headline_says_what_failed_and_what_was_done(reaction, step, line):
    assert str(Incident(failure("ps-0"), reaction, 1, step, 5.0).record()) == line
