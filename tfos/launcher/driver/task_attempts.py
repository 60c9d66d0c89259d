"""Read what Spark's own store knows of the task attempts of a role group. On the driver.

Spark knows of a lost executor or Python worker within a second, ZooKeeper of its session only when
that expires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["LostAttempt", "TaskAttempts"]


@dataclass(frozen=True)
class LostAttempt:
    """A task attempt that failed or was killed.

    Parameters
    ----------
    task
        Its id, unique in the application.
    index
        The partition: the role's index.
    killed
        Whether somebody had it ended; else it failed by itself.
    message
        Spark's words; empty where it has none.
    """

    task: int
    index: int
    killed: bool
    message: str


class TaskAttempts:
    """Of the stage whose `count` tasks are the role hosts.

    Raises what py4j raises: Spark may be gone.
    """

    def __init__(self, spark: SparkSession, count: int) -> None:
        self._context = spark.sparkContext
        self._count = count
        self._counted: tuple[int, int, int] | None = None
        self._lost: tuple[LostAttempt, ...] = ()

    def pending(self, job_group: str) -> bool:
        """Whether the stage waits for others that come before it; blocks for a few JVM calls."""
        stage = self._stage(job_group)
        return stage is not None and str(stage.status()) == "PENDING"

    def lost(self, job_group: str) -> tuple[LostAttempt, ...]:
        """Return the attempts that failed or were killed.

        Blocks for a few calls into the JVM; for some per task when there are more than at the last
        call.
        """
        stage = self._stage(job_group)
        if stage is None:
            return ()
        count = stage.numFailedTasks() + stage.numKilledTasks()
        if count == 0:
            return ()
        counted = (stage.stageId(), stage.attemptId(), count)
        if counted != self._counted:
            # Spark writes the record of a task before it counts it.
            self._lost = tuple(self._read(stage))
            self._counted = counted
        return self._lost

    def _stage(self, job_group: str) -> Any | None:
        tracker = self._context.statusTracker()
        stages: list[int] = []
        for job in tracker.getJobIdsForGroup(job_group):
            info = tracker.getJobInfo(job)
            stages.extend(() if info is None else info.stageIds)
        if not stages:
            return None
        stage = self._store().lastStageAttempt(max(stages))
        # The role hosts are the tasks of the last stage. Adaptive execution runs those of the
        # user's query before it as jobs of their own: what these lose is Spark's to run again.
        return stage if stage.numTasks() == self._count else None

    def _read(self, stage: Any) -> list[LostAttempt]:
        tasks = self._store().taskList(stage.stageId(), stage.attemptId(), 1 << 20)
        found = []
        for position in range(tasks.size()):
            attempt = tasks.apply(position)
            status = attempt.status()
            if status in ("FAILED", "KILLED"):
                message = attempt.errorMessage()
                words = str(message.get()) if message.isDefined() else ""
                index, killed = int(attempt.index()), status == "KILLED"
                found.append(LostAttempt(int(attempt.taskId()), index, killed, words))
        return found

    def _store(self) -> Any:
        return self._context._jsc.sc().statusStore()
