"""Run each role group as a Spark job of its own, from a thread of its own, and hear how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfos.fault.failure import Cause, Failure, Outcome
from tfos.topology import Role, RoleSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from tfos.launcher.role_host import RoleHost

__all__ = ["GroupReport", "RoleGroup"]

OUTCOME_SCHEMA = "outcome string"


@dataclass(frozen=True)
class GroupReport:
    """How a role group's Spark job ended: its hosts' outcomes, and Spark's own error if any."""

    role: Role
    outcomes: tuple[Outcome, ...]
    failure: Failure | None


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
    """

    def __init__(
        self, spark: SparkSession, spec: RoleSpec, host: RoleHost, frame: DataFrame | None
    ) -> None:
        self.spec = spec
        self._spark = spark
        self._host = host
        self._frame = spark.range(0, spec.count, 1, spec.count) if frame is None else frame
        self._job_group = f"tfos-{host.run_id}-{spec.role}"
        self._thread: threading.Thread | None = None

    def start(self, on_end: Callable[[GroupReport], None]) -> None:
        """Submit the Spark job; `on_end` is called from the group's thread when it has ended."""
        from pyspark import InheritableThread

        self._thread = InheritableThread(target=self._run, args=(on_end,))
        self._thread.daemon = True
        self._thread.start()

    def cancel(self) -> None:
        """Cancel the Spark job; returns at once, and `on_end` hears of the end."""
        self._spark.sparkContext.cancelJobGroup(self._job_group)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def _run(self, on_end: Callable[[GroupReport], None]) -> None:
        context = self._spark.sparkContext
        role = self.spec.role
        context.setJobGroup(self._job_group, f"tfos {role} x {self.spec.count}")
        try:
            rows: list[Any] = self._frame.mapInArrow(self._host, OUTCOME_SCHEMA).collect()
            outcomes = tuple(Outcome.from_json(json.loads(row.outcome)) for row in rows)
            report = GroupReport(role, outcomes, None)
        except Exception as error:
            report = GroupReport(role, (), _spark_failure(role, error))
        on_end(report)


def _spark_failure(role: Role, error: Exception) -> Failure:
    """Turn Spark's error into a record; the cause is its last non-empty "Caused by" or message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    headline = (causes[-1] if causes else lines[0] if lines else type(error).__name__)[:500]
    return Failure(
        key=str(role),
        cause=Cause.INFRASTRUCTURE,
        message=f"Spark ended the {role} tasks: {headline}",
        time=time.time(),
        traceback=str(error)[:8000],
        hint="Spark's own log of the executor that ran the task has the details",
    )
