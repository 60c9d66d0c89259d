from __future__ import annotations

import pytest
from support.waiting import wait_for


def test_what_was_awaited_in_vain_is_shown():
    left = ["a container"]
    with pytest.raises(AssertionError, match=r"0\.05 s in vain, last False: wait.*not left"):
        wait_for(lambda: not left, 0.05)


def test_what_is_there_at_last_is_returned():
    found = iter([None, "", "here"])
    assert wait_for(lambda: next(found), 5.0, poll_s=0.0) == "here"


def test_only_errors_that_mean_not_yet_are_looked_over():
    def refused() -> bool:
        raise ConnectionRefusedError("no server yet")

    with pytest.raises(AssertionError, match=r"last ConnectionRefusedError.*no server yet"):
        wait_for(refused, 0.0, not_yet=OSError)
    with pytest.raises(ConnectionRefusedError):
        wait_for(refused, 5.0)
