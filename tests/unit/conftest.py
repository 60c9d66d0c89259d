"""What holds for every unit test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine draws examples slowly, and its first ones slower: that is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A thread that a test leaves behind would be counted, or do harm, in another."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while left := [t.name for t in set(threading.enumerate()) - before if t.name[:5] == "tfos-"]:
        assert time.monotonic() < deadline, f"threads are left: {left}"
        time.sleep(0.01)
