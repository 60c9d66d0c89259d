"""When waiting for Spark's task slots ends."""

from __future__ import annotations

import threading

import pytest

from tfos.errors import InfrastructureError, InsufficientExecutorsError
from tfos.launcher.driver import task_slots
from tfos.launcher.driver.task_slots import SlotWait, await_task_slots


def wait(standstill_s: float | None = 15.0) -> SlotWait:
    return SlotWait(4, limit_s=100.0, standstill_s=standstill_s, now=1000.0)


def test_it_ends_when_there_are_enough():
    waiting = wait()
    assert not waiting.look(0, 1000.0)
    assert not waiting.look(3, 1014.0)
    assert waiting.look(4, 1020.0)
    assert wait().look(9, 1000.0)


def test_each_that_comes_gives_the_others_more_time():
    waiting = wait()
    for slots, now in ((1, 1010.0), (1, 1024.9), (2, 1024.9), (2, 1039.8)):
        assert not waiting.look(slots, now)
    with pytest.raises(InsufficientExecutorsError, match="no more have come for 15 s") as caught:
        waiting.look(2, 1040.0)
    assert (caught.value.needed, caught.value.available) == (4, 2)
    assert "need 4 task slots, and Spark has 2 " in str(caught.value)
    assert "fewer --num-workers" in str(caught.value)


def test_one_that_goes_and_comes_again_gives_no_more_time():
    waiting = wait()
    assert not waiting.look(2, 1000.0)
    assert not waiting.look(1, 1010.0)
    assert not waiting.look(2, 1014.0)
    with pytest.raises(InsufficientExecutorsError):
        waiting.look(2, 1015.0)


@pytest.mark.parametrize(("slots", "standstill_s"), [(0, 15.0), (3, None)])
def test_none_at_all_and_no_bound_on_a_standstill_wait_for_the_whole_time(slots, standstill_s):
    waiting = wait(standstill_s)
    assert not waiting.look(slots, 1000.0)
    assert not waiting.look(slots, 1099.9)
    with pytest.raises(InsufficientExecutorsError, match="register_timeout_s = 100 s") as caught:
        waiting.look(slots, 1100.0)
    assert caught.value.available == slots


@pytest.mark.parametrize(("found", "enough"), [([1, 2, 4], True), ([1, 2, 2, 2], False)])
def test_it_polls_until_there_are_enough_or_the_run_is_stopped(monkeypatch, found, enough):
    monkeypatch.setattr(task_slots, "POLL_S", 0.0)
    cancelled, left = threading.Event(), iter(found)

    def count(spark: object) -> int:
        slots = next(left)
        if slots == found[-1]:
            cancelled.set()
        return slots

    monkeypatch.setattr(task_slots, "count_task_slots", count)
    monkeypatch.setattr(task_slots, "is_stopped", lambda spark: False)
    bounds = {"limit_s": 60.0, "standstill_s": 15.0, "cancelled": cancelled}
    assert await_task_slots(None, 4, **bounds) is enough
    assert not await_task_slots(None, 4, **bounds)


def test_nothing_is_awaited_of_a_spark_that_was_stopped(monkeypatch):
    monkeypatch.setattr(task_slots, "POLL_S", 0.0)
    stopped = iter([False, False, True])
    monkeypatch.setattr(task_slots, "count_task_slots", lambda spark: 0)
    monkeypatch.setattr(task_slots, "is_stopped", lambda spark: next(stopped))
    bounds = {"limit_s": 60.0, "standstill_s": 15.0, "cancelled": threading.Event()}
    with pytest.raises(InfrastructureError, match="Spark was stopped"):
        await_task_slots(None, 4, **bounds)
