"""The import of TensorFlow: its notices are kept for when it fails, the collector rests."""

from __future__ import annotations

import gc
import os

import pytest

from tfos.launcher.training.quiet_import import import_quietly


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.unfreeze()


def test_notices_are_not_shown_and_the_collector_rests(capfd):
    resting = []

    def load():
        resting.append(not gc.isenabled())
        os.write(2, b"a notice\n")

    import_quietly(load)
    assert resting == [True]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert capfd.readouterr().err == ""


def test_a_failing_import_shows_them(capfd):
    def load():
        os.write(2, b"a notice\n")
        raise ImportError("no such library")

    with pytest.raises(ImportError, match="no such library"):
        import_quietly(load)
    assert gc.isenabled()
    assert capfd.readouterr().err == "a notice\n"
