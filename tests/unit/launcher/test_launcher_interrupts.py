"""When a driver's own time is up."""

import time

import pytest

from tfos.errors import RunTimeoutError
from tfos.launcher.interrupts import Interrupts


def test_what_was_spent_before_the_driver_began_counts():
    begin = time.monotonic()
    with pytest.raises(RunTimeoutError, match="--timeout 60 s"), Interrupts(60, time.time() - 100):
        time.sleep(30)
    assert time.monotonic() - begin < 20


def test_a_clock_that_is_ahead_gives_no_extra_time():
    with Interrupts(60, time.time() + 1000) as interrupts:
        assert interrupts.spent_s == 0
