"""When a training process counts as hung: by silence, or by standing still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfos.launcher.role.watchdog import Watchdog

HEARTBEAT_S, STALL_S, CONNECT_S = 10.0, 60.0, 30.0
START = 1000.0


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog(HEARTBEAT_S, STALL_S, CONNECT_S, START)


def silent(watchdog: Watchdog, at: float) -> bool:
    complaint = watchdog.complaint(at)
    return complaint is not None and "no sign of life" in complaint[0]


def still(watchdog: Watchdog, at: float) -> bool:
    """Whether it complains of a standstill, at an instant at which it has just heard a sign."""
    watchdog.hear(at)
    complaint = watchdog.complaint(at)
    assert complaint is None or "no progress" in complaint[0]
    return complaint is not None


def test_silence_counts_from_the_beginning_and_only_past_its_bound(watchdog):
    assert watchdog.complaint(START + HEARTBEAT_S) is None
    assert watchdog.complaint(START + HEARTBEAT_S + 0.1) == (
        "it gave no sign of life for 10.1 s",
        "it was stopped, its host is overloaded, or native code holds Python's lock; raise "
        "supervision.heartbeat_timeout_s if it only pauses",
    )


@pytest.mark.parametrize(
    "sign",
    [lambda w, at: w.hear(at), lambda w, at: w.see_step(3, at), lambda w, at: w.see_work(at)],
)
def test_every_sign_is_one_of_life(watchdog, sign):
    sign(watchdog, START + 9)
    assert not silent(watchdog, START + 9 + HEARTBEAT_S)
    assert silent(watchdog, START + 9.1 + HEARTBEAT_S)


def test_who_reports_no_step_is_held_to_its_heartbeat_alone(watchdog):
    assert not still(watchdog, START + 100 * STALL_S)


def test_a_standstill_counts_from_the_last_new_step(watchdog):
    watchdog.see_step(7, START + 5)
    watchdog.see_step(7, START + 50)
    assert not still(watchdog, START + 5 + STALL_S)
    watchdog.hear(START + 6 + STALL_S)
    assert watchdog.complaint(START + 6 + STALL_S) == (
        "it made no progress past step 7 for 61.0 s",
        "its threads' stacks show where it waits; raise --stall-timeout if a step, an evaluation "
        "or the wait for rows may take longer",
    )


def test_a_new_step_ends_a_standstill(watchdog):
    watchdog.see_step(7, START)
    assert still(watchdog, START + STALL_S + 1)
    watchdog.see_step(8, START + STALL_S + 1)
    assert not still(watchdog, START + STALL_S + 2)


def test_a_step_may_go_back_as_a_resumed_program_does(watchdog):
    watchdog.see_step(7, START)
    watchdog.see_step(5, START + STALL_S)
    assert not still(watchdog, START + STALL_S + 1)


def test_work_that_is_no_step_is_progress(watchdog):
    watchdog.see_step(7, START)
    watchdog.see_work(START + STALL_S)
    assert not still(watchdog, START + 2 * STALL_S)
    assert still(watchdog, START + 2 * STALL_S + 1)


def test_silence_is_said_before_a_standstill(watchdog):
    watchdog.see_step(7, START)
    assert silent(watchdog, START + 2 * STALL_S)


def test_connecting_has_a_bound_of_its_own_which_ends_with_it(watchdog):
    watchdog.see_connecting(START)
    watchdog.hear(START + CONNECT_S)
    assert watchdog.complaint(START + CONNECT_S) is None
    watchdog.hear(START + CONNECT_S + 0.1)
    what, hint = watchdog.complaint(START + CONNECT_S + 0.1)
    assert what == "it did not connect to its peers within 30 s"
    assert "supervision.connect_timeout_s" in hint
    watchdog.see_connected(START + CONNECT_S + 0.2)
    for at in range(0, 1000, 5):
        watchdog.hear(START + CONNECT_S + at)
        assert watchdog.complaint(START + CONNECT_S + at) is None


@given(st.lists(st.tuples(st.integers(0, int(HEARTBEAT_S)), st.integers(0, 3)), max_size=40))
def test_slow_is_not_dead(signs):
    """Who speaks within every heartbeat and steps within every stall time is never hung."""
    watchdog, at, stepped, step = Watchdog(HEARTBEAT_S, STALL_S, CONNECT_S, 0.0), 0.0, 0.0, 0
    for wait, kind in signs:
        at += wait
        assert watchdog.complaint(at) is None
        if kind == 0 or at - stepped > STALL_S - HEARTBEAT_S:
            step, stepped = step + 1, at
            watchdog.see_step(step, at)
        elif kind == 1:
            watchdog.see_step(step, at) if step else watchdog.hear(at)
        else:
            watchdog.hear(at)
