"""When a driver's own time is up."""

import os
import signal
import time

import pytest

from tfos.errors import RunTimeoutError
from tfos.launcher.driver.interrupts import Interrupts


def test_what_was_spent_before_the_driver_began_counts():
    begin = time.monotonic()
    with pytest.raises(RunTimeoutError, match="--timeout 60 s"), Interrupts(60, time.time() - 100):
        time.sleep(30)
    assert time.monotonic() - begin < 20


def test_an_alarm_before_the_block_begins_leaves_no_handler(monkeypatch):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]

    def at_once(which, seconds):
        if seconds:
            signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(signal, "setitimer", at_once)
    with pytest.raises(RunTimeoutError), Interrupts(60, time.time() - 100):
        pytest.fail("the block has begun")
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_clock_that_is_ahead_gives_no_extra_time():
    with Interrupts(60, time.time() + 1000) as interrupts:
        assert interrupts.spent_s == 0


def test_a_forked_child_has_the_handlers_of_before():
    def ends_by_default() -> bool:
        return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    assert ends_by_default()
    with Interrupts(None, time.time()):
        assert not ends_by_default()
        child = os.fork()
        if child == 0:
            os._exit(0 if ends_by_default() else 1)
        assert os.waitpid(child, 0)[1] == 0
