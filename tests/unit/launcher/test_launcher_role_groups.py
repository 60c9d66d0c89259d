"""Whose failure an error of Spark's is, and which of its lines says so."""

from __future__ import annotations

import pytest

from tfos.fault.failure import Cause
from tfos.launcher.role_groups import _spark_failure
from tfos.topology import Role

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
