"""Whose failure an error of Spark's is, and which of its lines says so."""

from __future__ import annotations

import pytest

from tfos.fault.failure import Cause
from tfos.launcher.role_groups import _failed, _spark_failure
from tfos.topology import Role, TaskKey

PYTHON = """An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "worker.py", line 1, in main
{last}

JVM stacktrace:
org.apache.spark.api.python.PythonException: ..."""


class Captured(Exception):
    def getCondition(self) -> str:
        return "SOME_CONDITION"


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (Captured("[CAST_INVALID_INPUT] The value 'a'\nmore"), Cause.USER_CODE, "The value 'a'"),
        (
            Captured(PYTHON.format(last="ValueError: in a udf")),
            Cause.USER_CODE,
            ": ValueError: in a udf",
        ),
        (
            Captured(PYTHON.format(last="tfos.errors.RendezvousConnectionError: no ZooKeeper")),
            Cause.INFRASTRUCTURE,
            "no ZooKeeper",
        ),
        (
            RuntimeError("Job aborted\nat x\nCaused by: java.io.IOException: disk\nat y"),
            Cause.INFRASTRUCTURE,
            "Caused by: java.io.IOException: disk",
        ),
        (RuntimeError(""), Cause.INFRASTRUCTURE, "RuntimeError"),
    ],
)
def test_whose_failure_it_is(error, cause, words):
    failure = _spark_failure(Role.WORKER, error)
    assert failure.cause is cause
    assert failure.message.startswith("Spark ended the worker tasks: ")
    assert words in failure.message
    assert "\n" not in failure.message


BARRIER = (
    "An error occurred while calling o91.collectToPython.\n"
    ": org.apache.spark.SparkException: Job aborted due to stage failure: Could not recover from a "
    "failed barrier ResultStage. Most recent failure reason: Stage failed because barrier task "
    "ResultTask(4, 1) finished unsuccessfully.\n{why}\n\tat org.apache.spark.Some.where(X.scala:1)"
)


@pytest.mark.parametrize(
    ("why", "says"),
    [
        (
            "ExecutorLostFailure (executor 0 exited caused by one of the running tasks) Reason: "
            "Command exited with code 137",
            "ExecutorLostFailure (executor 0 exited caused by one of the running tasks) Reason: "
            "Command exited with code 137",
        ),
        (
            "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). "
            "Consider setting 'spark.python.worker.faulthandler.enabled' to 'true'.",
            "Python worker exited unexpectedly (crashed).",
        ),
        ("TaskKilled (its role host went silent)", "TaskKilled (its role host went silent)"),
    ],
)
def test_the_end_of_a_barrier_stage_names_the_task_that_took_the_others_with_it(why, says):
    report = _failed(Role.WORKER, RuntimeError(BARRIER.format(why=why)), bool)
    assert report.culprit == TaskKey(Role.WORKER, 1)
    assert report.failure is not None
    assert (report.failure.key, report.failure.message) == ("worker-1", says)
    assert report.failure.cause is Cause.INFRASTRUCTURE


@pytest.mark.parametrize("error", [Captured("[X] bad value"), RuntimeError("Job aborted")])
def test_no_other_end_names_a_task(error):
    report = _failed(Role.WORKER, error, bool)
    assert report.culprit is None
    assert report.failure is not None
    assert report.failure.message == _spark_failure(Role.WORKER, error).message


@pytest.mark.parametrize("killed", [True, False])
def test_a_spark_that_was_stopped_from_outside_is_no_failure_of_the_tasks(killed):
    said = "SparkException: Job 0 cancelled because SparkContext was shut down"
    report = _failed(Role.WORKER, RuntimeError(said), lambda: killed)
    assert report.killed is killed
    assert report.failure is not None
    assert report.failure.message.startswith("Spark was stopped by somebody else")
