"""How a training process ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfos.fault.failures.record import Cause
from tfos.launcher.handover.messages import Ended
from tfos.launcher.training import main as training_process
from tfos.launcher.training.main import StoppedError, TrainingProcess


class Link:
    """Stands in for the line to the host; keeps what was told."""

    def __init__(self):
        self.told = []

    def send(self, message):
        self.told.append(message)

    def flush(self):
        pass

    def should_stop(self):
        return False


@pytest.fixture
def process(monkeypatch):
    made = TrainingProcess(
        SimpleNamespace(arch="plain", trains=True, facts=SimpleNamespace(key="worker-0")), Link()
    )
    feed = SimpleNamespace(progress=lambda: (None, False), is_fed=False)
    monkeypatch.setattr(training_process.TrainingFeed, "open", lambda *_: feed)
    monkeypatch.setattr(training_process, "_load_job", lambda _: SimpleNamespace(shutdown=int))
    return made


@pytest.mark.parametrize("came", [False, True])
def test_what_a_signal_makes_of_a_native_call_is_no_error_of_the_users(process, monkeypatch, came):
    def train(*_):
        monkeypatch.setattr(training_process, "_sigterm_came", came)
        raise RuntimeError("UnavailableError REPLACED BY StoppedError")

    monkeypatch.setattr(process, "_train", train)
    if came:
        with pytest.raises(StoppedError):
            process.run()
    else:
        assert process.run() == 1
    failures = [each.failure for each in process._link.told if isinstance(each, Ended)]
    assert [failure.cause for failure in failures] == ([] if came else [Cause.USER_CODE])
