"""Whether Spark was stopped under a run, and by whom."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfos.errors import ExitCode, InfrastructureError
from tfos.launcher.platform import spark_stop
from tfos.launcher.platform.spark_stop import explain_stop, is_stopped, stopped_by_others


def session(stopped: bool | None):
    """Return a session whose context runs, was stopped by Spark or, with None, by the program."""
    scala = SimpleNamespace(isStopped=lambda: stopped)
    jsc = None if stopped is None else SimpleNamespace(sc=lambda: scala)
    context = SimpleNamespace(_jsc=jsc, master="yarn", applicationId="application_1_2")
    return SimpleNamespace(sparkContext=context, _jvm=None)


@pytest.mark.parametrize(
    ("stopped", "found", "by_others"),
    [(False, False, False), (True, True, True), (None, True, False)],
)
def test_who_stopped_spark(stopped, found, by_others):
    spark = session(stopped)
    assert (is_stopped(spark), stopped_by_others(spark)) == (found, by_others)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("KILLED", ExitCode.INTERRUPTED),
        ("FAILED", ExitCode.INFRASTRUCTURE),
        (None, ExitCode.INFRASTRUCTURE),
    ],
)
def test_yarn_is_asked_whether_the_application_was_killed(monkeypatch, state, code):
    class Yarn:
        def __init__(self, jvm: None) -> None:
            if state is None:
                raise InfrastructureError("YARN does not answer")

        def status(self, application: str):
            return SimpleNamespace(state=state)

    monkeypatch.setattr(spark_stop, "YarnClient", Yarn)
    error = explain_stop(session(True))
    assert error.exit_code == code
    assert ("application_1_2 was killed" in str(error)) == (state == "KILLED")
