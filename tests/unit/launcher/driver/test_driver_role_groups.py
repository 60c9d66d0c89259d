"""Whose failure an error of Spark's is, and which of its lines says so."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from tfos.errors import InterruptedRunError
from tfos.fault.failures.record import Cause
from tfos.launcher.driver import role_groups
from tfos.launcher.driver.role_groups import GroupReport, RoleGroup, _failed, _spark_failure
from tfos.topology import Role, RoleSpec, TaskKey

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
        (
            RuntimeError(
                "An error occurred while calling o9.collectToPython.\n"
                ": org.apache.spark.SparkException: [SCALAR_SUBQUERY_TOO_MANY_ROWS] More than one "
                "row returned by a subquery used as an expression. SQLSTATE: 21000"
            ),
            Cause.USER_CODE,
            ": [SCALAR_SUBQUERY_TOO_MANY_ROWS] More than one row returned",
        ),
        (
            RuntimeError(
                "Job aborted due to stage failure: Lost task 0.0 in stage 1.0: "
                "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error\n"
                'Caused by: java.lang.NumberFormatException: For input string: "x"'
            ),
            Cause.USER_CODE,
            'NumberFormatException: For input string: "x"',
        ),
        (
            RuntimeError("org.apache.spark.SparkException: [SPARK_JOB_CANCELLED] Job 1 cancelled"),
            Cause.INFRASTRUCTURE,
            "Job 1 cancelled",
        ),
    ],
)
def test_whose_failure_it_is(error, cause, words):
    failure = _spark_failure(Role.WORKER, error)
    assert failure.cause is cause
    assert failure.message.startswith("Spark ended the worker tasks: ")
    assert words in failure.message
    assert "\n" not in failure.message


def test_a_module_that_executors_lack_is_shipped_by_an_environment():
    failure = _spark_failure(Role.CHIEF, RuntimeError("ModuleNotFoundError: No module named 'x'"))
    assert failure.cause is Cause.CONFIG
    assert "--env venv:DIRECTORY" in failure.hint


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
    report = _failed(Role.WORKER, RuntimeError(BARRIER.format(why=why)))
    assert report.culprit == TaskKey(Role.WORKER, 1)
    assert report.failure is not None
    assert (report.failure.key, report.failure.message) == ("worker-1", says)
    assert report.failure.cause is Cause.INFRASTRUCTURE


@pytest.mark.parametrize("error", [Captured("[X] bad value"), RuntimeError("Job aborted")])
def test_no_other_end_names_a_task(error):
    report = _failed(Role.WORKER, error)
    assert report.culprit is None
    assert report.failure is not None
    assert report.failure.message == _spark_failure(Role.WORKER, error).message


class Spark:
    """A session whose context says whether it was stopped, as the JVM's does."""

    def __init__(self, *, stopped: bool) -> None:
        context = SimpleNamespace(isStopped=lambda: stopped)
        self.sparkContext = self
        self.master = "local[2]"
        self._jsc = SimpleNamespace(sc=lambda: context)

    def range(self, *bounds: int) -> None:
        return None

    def setJobGroup(self, *words: str) -> None:
        pass

    def setLocalProperty(self, *words: str) -> None:
        pass

    def cancelJobGroup(self, name: str) -> None:
        raise RuntimeError("Cannot call methods on a stopped SparkContext.")


def run_group(spark: Spark, *, gang: bool) -> tuple[GroupReport, list[str]]:
    """Return how a group's job ends that cannot run, and what the run is told before."""
    reports, told = [], []
    spec = RoleSpec(Role.WORKER, 4, trains=True, gang=gang)
    host = SimpleNamespace(run_id="r1")
    group = RoleGroup(spark, spec, host, None, slots_within_s=0.0, on_stopped=told.append)
    group._run(reports.append)
    group._thread = threading.current_thread()
    group.cancel()  # the run is stopping now
    (report,) = reports
    return report, told


KILLED = InterruptedRunError("application_1_2 was killed in YARN")


@pytest.mark.parametrize("gang", [True, False])
def test_the_kill_of_an_application_ends_its_run_as_interrupted(monkeypatch, gang):
    monkeypatch.setattr(role_groups, "explain_stop", lambda spark: KILLED)
    report, told = run_group(Spark(stopped=True), gang=gang)
    assert report.killed
    assert report.failure is not None
    assert report.failure.message == str(KILLED)
    assert told == []


def test_a_gang_whose_spark_was_stopped_is_not_to_come_again():
    report, (why,) = run_group(Spark(stopped=True), gang=True)
    assert "Spark was stopped by somebody else" in why
    assert (report.failure, report.killed) == (None, False)


def test_a_spark_that_was_stopped_is_no_failure_of_the_tasks():
    report, told = run_group(Spark(stopped=True), gang=False)
    assert report.failure is not None
    assert report.failure.message.startswith("Spark was stopped by somebody else")
    assert (report.failure.cause, told) == (Cause.INFRASTRUCTURE, [])
    report, _ = run_group(Spark(stopped=False), gang=False)
    assert report.failure is not None
    assert report.failure.message.startswith("Spark ended the worker tasks")
