"""Run each role group as a Spark job of its own, from a thread of its own, and hear how it ends."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tfos import wire
from tfos.arrow_feed.gang import read_shuffled
from tfos.errors import InsufficientExecutorsError, InterruptedRunError
from tfos.fault.failures.error_text import telling
from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.launcher.driver.resource_profiles import profile_of
from tfos.launcher.driver.task_attempts import LostAttempt, TaskAttempts
from tfos.launcher.driver.task_slots import STANDSTILL_S, await_task_slots
from tfos.launcher.platform.role_memory import JVM_MEMORY_ADVICE, jvm_ran_out_of_memory
from tfos.launcher.platform.spark_stop import explain_stop, is_stopped
from tfos.launcher.role.host import SUBMISSION_PROPERTY, first_attempt
from tfos.topology import Role, RoleSpec, TaskKey

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from tfos.launcher.role.host import RoleHost

__all__ = ["GroupReport", "RoleGroup"]

log = logging.getLogger(__name__)

_OTHER_PYTHON = (
    "the executors' Python lacks what this one has: have pl_submit ship it by --env venv:DIRECTORY "
    "or conda:NAME; for a session of your own set the environment variable PYSPARK_PYTHON to a "
    "Python that has it before you make the session"
)
_EXECUTORS_LOG = "Spark's own log of the executor that ran the task has the details"

OUTCOME_SCHEMA = "outcome string"

# The failure of a barrier stage names the task that took the others with it, and why it ended.
_FAILED_TASK = re.compile(r"barrier task \w+\(\d+, (\d+)\) finished unsuccessfully\.\s*(.+)")
# Of a Python worker that was killed there is nothing to be seen in a traceback.
_ADVICE = re.compile(r"^org\.apache\.spark\.SparkException: | Consider setting '.*")
# Spark begins errors of queries and of Python functions in them with a condition's name.
_CONDITION = re.compile(r"\[[A-Z][A-Z0-9_]+(\.[A-Z0-9_]+)*\]")
_CONDITION_OF_JAVA = re.compile(r"org\.apache\.spark\.[\w.]*Exception: \[([A-Z][A-Z0-9_]*)[].]")
_CONDITIONS_OF_THE_CLUSTER = {"INTERNAL_ERROR", "SPARK_JOB_CANCELLED"}
_CALL = re.compile(r"An error occurred while calling \S+$")


@dataclass(frozen=True)
class GroupReport:
    """How a role group's Spark job ended.

    Parameters
    ----------
    outcomes
        Its hosts' outcomes.
    failure
        Spark's own error, if any.
    culprit
        The role whose task Spark names as the one that ended the job of a gang; None when none is.
    killed
        Whether it ended because its application was killed in YARN.
    """

    role: Role
    outcomes: tuple[Outcome, ...]
    failure: Failure | None
    culprit: TaskKey | None = None
    killed: bool = False


class RoleGroup:
    """The tasks of one role: partition i of the DataFrame becomes the role host of index i.

    Parameters
    ----------
    spec
        The role.
    host
        The executor program.
    frame
        What feeds the role, one partition a task; None for a role that is not fed.
    slots_within_s
        For a gang: longest wait for as many task slots as it has members.
    on_stopped
        Called from a gang's thread, with the reason, when Spark was stopped under it: it cannot be
        submitted again.

    Attributes
    ----------
    refusal
        Why the gang was not submitted: Spark has too few task slots.
    """

    def __init__(
        self,
        spark: SparkSession,
        spec: RoleSpec,
        host: RoleHost,
        frame: DataFrame | None,
        *,
        slots_within_s: float,
        on_stopped: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self.refusal: InsufficientExecutorsError | None = None
        self._spark = spark
        self._host = host
        self._slots_within_s = slots_within_s
        self._on_stopped = on_stopped
        self._shuffled = frame is None or not spec.gang
        self._frame = spark.range(0, spec.count, 1, spec.count) if frame is None else frame
        self._attempts = TaskAttempts(spark, spec.count)
        self._submission = 0
        self._submitted = threading.Event()
        self._withdrawn = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, on_end: Callable[[GroupReport], None]) -> None:
        """Submit the Spark job; `on_end` is called from the group's thread when it has ended.

        A gang is submitted once Spark has the task slots for it.
        """
        from pyspark import InheritableThread

        self._submitted.clear()
        self._thread = InheritableThread(target=self._run, args=(on_end,))
        self._thread.daemon = True
        self._thread.start()

    def resubmit(self, on_end: Callable[[GroupReport], None]) -> int:
        """Submit the Spark job again, once the one before has ended; as `start`.

        Returns the attempt number of its first role hosts, higher than all before.
        """
        self._submission += 1
        self.start(on_end)
        return first_attempt(self._submission)

    @property
    def preparing(self) -> bool:
        """Whether a gang's tasks cannot have started yet.

        It waits for task slots, or the rows are still being shuffled to it, which takes as long as
        the query does. Blocks for a few calls into the JVM.
        """
        if not self.spec.gang:
            return False
        if not self._submitted.is_set():
            return True
        try:
            return self._attempts.pending(self._job_group)
        except Exception as error:
            log.debug("Spark does not tell whether the %s tasks start: %s", self.spec.role, error)
            return False

    def withdraw(self) -> None:
        """Submit nothing more, for the run is being stopped; tasks that Spark runs go on.

        What only prepares for them is cancelled; returns at once.
        """
        self._withdrawn.set()
        if self._thread is not None and not self._submitted.is_set():
            self._cancel_jobs()

    def cancel(self) -> None:
        """Cancel the Spark job; returns at once, and `on_end` hears of the end."""
        self.withdraw()
        self._cancel_jobs()

    def _cancel_jobs(self) -> None:
        try:
            self._spark.sparkContext.cancelJobGroup(self._job_group)
        except Exception as error:
            # A Spark that was stopped has ended them all.
            log.debug("the %s tasks were not cancelled: %s", self.spec.role, error)

    def kill_task(self, task: int) -> None:
        """Have Spark end one task attempt, by its id, and run the task again; returns at once."""
        context = self._spark.sparkContext
        try:
            context._jsc.sc().killTaskAttempt(task, True, "its role host went silent")
        except Exception as error:
            # It may have ended by itself: Spark runs it again then, too.
            log.debug("task attempt %d was not killed: %s", task, error)

    @property
    def _job_group(self) -> str:
        """Spark's name for the latest submission."""
        again = f"-{self._submission}" if self._submission else ""
        return f"tfos-{self._host.run_id}-{self.spec.role}{again}"

    def lost_attempts(self) -> tuple[LostAttempt, ...]:
        """Return the task attempts that Spark knows to have failed, or to have been killed.

        Those of a gang are killed because one has failed, and are left out. Blocks for a few calls
        into the JVM.
        """
        if not self._submitted.is_set():
            return ()  # what runs for it is the user's query
        try:
            lost = self._attempts.lost(self._job_group)
        except Exception as error:
            log.debug("Spark does not tell how the %s tasks end: %s", self.spec.role, error)
            return ()
        return tuple(a for a in lost if not (self.spec.gang and a.killed))

    def task_failure(self, index: int, task: int) -> Failure | None:
        """Return what Spark says of a failed attempt, by its id; None when it says nothing.

        Blocks as `lost_attempts`.
        """
        text = next((a.message for a in self.lost_attempts() if a.task == task), "")
        if not text:
            return None
        user = "PythonException" in text or _CONDITION.search(text) is not None
        return Failure(
            key=f"{self.spec.role}-{index}",
            cause=Cause.USER_CODE if user else Cause.INFRASTRUCTURE,
            message=_headline(text),
            time=time.time(),
            traceback=text[:8000] if user else "",
        )

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def _run(self, on_end: Callable[[GroupReport], None]) -> None:
        context = self._spark.sparkContext
        role = self.spec.role
        try:
            context.setJobGroup(self._job_group, f"tfos {role} x {self.spec.count}")
            context.setLocalProperty(SUBMISSION_PROPERTY, str(self._submission))
            rows: list[Any] = self._run_tasks() if self._has_slots() else []
            outcomes = tuple(wire.from_text(Outcome, row.outcome) for row in rows)
            report = GroupReport(role, outcomes, None)
        except InsufficientExecutorsError as error:
            self.refusal = error
            report = GroupReport(role, (), _refused(role, error))
        except Exception as error:
            report = self._report_of(error)
        on_end(report)

    def _report_of(self, error: Exception) -> GroupReport:
        role = self.spec.role
        if self._withdrawn.is_set() and not self._submitted.is_set():
            return GroupReport(role, (), None)
        if not is_stopped(self._spark):
            return _failed(role, error)
        ended = explain_stop(self._spark)
        killed = isinstance(ended, InterruptedRunError)
        if self.spec.gang and not killed and not self._withdrawn.is_set():
            # Before its end is reported: a gang that only failed is submitted again.
            self._on_stopped(str(ended))
            return GroupReport(role, (), None)
        return GroupReport(role, (), _stopped(ended), killed=killed)

    def _run_tasks(self) -> list[Any]:
        if not self._shuffled:
            # Once, whatever becomes of the submissions.
            log.info("shuffling the rows to %d %ss", self.spec.count, self.spec.role)
            self._frame, self._shuffled = read_shuffled(self._frame), True
            if self._withdrawn.is_set():
                return []
        tasks = self._frame.mapInArrow(
            self._host,
            OUTCOME_SCHEMA,
            barrier=self.spec.gang,
            profile=profile_of(self._spark, self.spec),
        )
        self._submitted.set()
        return tasks.collect()

    def _has_slots(self) -> bool:
        """Wait for a gang's task slots; say whether there is still something to submit."""
        if not self.spec.gang:
            return True
        return await_task_slots(
            self._spark,
            self.spec.count,
            limit_s=self._slots_within_s,
            # What a lost executor held comes back when the cluster can give it.
            standstill_s=STANDSTILL_S if self._submission == 0 else None,
            cancelled=self._withdrawn,
        )


def _refused(role: Role, error: InsufficientExecutorsError) -> Failure:
    return Failure(key=str(role), cause=Cause.CONFIG, message=str(error), time=time.time())


def _failed(role: Role, error: Exception) -> GroupReport:
    failure = _spark_failure(role, error)
    named = _FAILED_TASK.search(str(error))
    if named is None or failure.cause is not Cause.INFRASTRUCTURE:
        return GroupReport(role, (), failure)
    culprit = TaskKey(role, int(named[1]))
    failure = replace(failure, key=str(culprit), message=_headline(named[2]))
    return GroupReport(role, (), failure, culprit)


def _stopped(ended: Exception) -> Failure:
    return Failure(key="driver", cause=Cause.INFRASTRUCTURE, message=str(ended), time=time.time())


def _spark_failure(role: Role, error: Exception) -> Failure:
    """Turn Spark's error into a record.

    Spark gives a condition (such as ``CAST_INVALID_INPUT``) to errors of the query and of Python
    functions in it, which is the user's ETL, run only now that rows are pulled. What has none (a
    lost executor, an aborted stage) is the cluster's; so is an error of tfos's own.
    """
    text = str(error)
    cause, hint = Cause.USER_CODE, ""
    if "ModuleNotFoundError" in text:
        cause, hint = Cause.CONFIG, _OTHER_PYTHON
    elif jvm_ran_out_of_memory(text):
        cause, hint = Cause.MEMORY, JVM_MEMORY_ADVICE
    elif not _has_condition(error, text):
        cause, hint = Cause.INFRASTRUCTURE, _EXECUTORS_LOG
    elif "tfos.errors." in text:
        cause = Cause.INFRASTRUCTURE
    return Failure(
        key=str(role),
        cause=cause,
        message=f"Spark ended the {role} tasks: {_headline(text) or type(error).__name__}",
        time=time.time(),
        traceback=text.partition("JVM stacktrace:")[0].rstrip()[:8000],
        hint=hint,
    )


def _has_condition(error: Exception, text: str) -> bool:
    if getattr(error, "getCondition", lambda: None)() is not None:
        return True
    # PySpark passes errors of tasks on as those of Java, whose text has the condition.
    named = {match[1] for match in _CONDITION_OF_JAVA.finditer(text)}
    return bool(named - _CONDITIONS_OF_THE_CLUSTER)


def _headline(text: str) -> str:
    """Return the line that says most: a Python error's last, a JVM error's last cause or first."""
    lines = [line.strip() for line in text.partition("JVM stacktrace:")[0].splitlines()]
    lines = [line.removeprefix(": ") for line in lines if line and not _CALL.match(line)]
    if any(line.endswith("Traceback (most recent call last):") for line in lines):
        return str(telling("PythonException", text, carries=True))[:500]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return _ADVICE.sub("", (causes or lines or [""])[-1 if causes else 0])[:500]
