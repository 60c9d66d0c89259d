"""Wait until Spark has a task slot for every member of a gang. Runs on the driver.

Spark checks a barrier stage's slots only when it is submitted and, where executors are still to
come, again many seconds later: it is quicker to submit once they are there.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from tfos.errors import InfrastructureError, InsufficientExecutorsError
from tfos.launcher.platform.spark_stop import is_stopped

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SlotWait", "await_task_slots", "count_executors", "count_task_slots"]

log = logging.getLogger("tfos")

STANDSTILL_S: Final = 15.0
"""How long executors that have come may be too few before no more are expected."""
POLL_S: Final = 0.1
TELL_EVERY_S: Final = 5.0


class SlotWait:
    """Decides whether to wait on. Pure: the caller brings slots and time, seconds, monotonic.

    Parameters
    ----------
    needed
        Slots that are wanted.
    limit_s
        Longest wait.
    standstill_s
        Longest wait with some slots, but no more coming; None for as long as `limit_s`.
    now
        When the wait begins.
    """

    def __init__(
        self, needed: int, *, limit_s: float, standstill_s: float | None, now: float
    ) -> None:
        self._needed = needed
        self._limit_s = limit_s
        self._standstill_s = standstill_s
        self._began = now
        self._most = 0
        self._grew = now

    def look(self, slots: int, now: float) -> bool:
        """Say whether `slots` are enough.

        Raises
        ------
        InsufficientExecutorsError
            If they are not and there is no more waiting; names both numbers and what to do.
        """
        if slots >= self._needed:
            return True
        if slots > self._most:
            self._most, self._grew = slots, now
        if now - self._began >= self._limit_s:
            raise self._error(slots, f"within registry.register_timeout_s = {self._limit_s:g} s")
        standstill_s = self._standstill_s
        if slots > 0 and standstill_s is not None and now - self._grew >= standstill_s:
            raise self._error(slots, f"and no more have come for {standstill_s:g} s")
        return False

    def _error(self, slots: int, how_long: str) -> InsufficientExecutorsError:
        return InsufficientExecutorsError(
            f"the ranks of a ring start all together: they need {self._needed} task slots, and "
            f"Spark has {slots} {how_long}; add executors or cores (look for executors that fail "
            "to start), or use fewer --num-workers",
            needed=self._needed,
            available=slots,
        )


def await_task_slots(
    spark: SparkSession,
    needed: int,
    *,
    limit_s: float,
    standstill_s: float | None,
    cancelled: threading.Event,
) -> bool:
    """Block until Spark has `needed` task slots; returns False if `cancelled` was set before.

    Parameters
    ----------
    limit_s, standstill_s
        Bounds of the wait, as for `SlotWait`.

    Raises
    ------
    InsufficientExecutorsError
        As `SlotWait.look`.
    InfrastructureError
        If Spark is stopped meanwhile: none will come any more.
    """
    now = time.monotonic()
    wait = SlotWait(needed, limit_s=limit_s, standstill_s=standstill_s, now=now)
    tell_at = now + TELL_EVERY_S
    while not cancelled.is_set():
        if is_stopped(spark):
            raise InfrastructureError("Spark was stopped as executors were awaited")
        slots, now = count_task_slots(spark), time.monotonic()
        if wait.look(slots, now):
            return True
        if now >= tell_at:
            tell_at = now + TELL_EVERY_S
            log.info("waiting for executors: %d of %d task slots are there", slots, needed)
        cancelled.wait(POLL_S)
    return False


def count_task_slots(spark: SparkSession) -> int:
    """Return how many tasks Spark can run at once now; blocks for one call into the JVM."""
    context: Any = spark.sparkContext._jsc.sc()
    profile = context.resourceProfileManager().defaultResourceProfile()
    return int(context.maxNumConcurrentTasks(profile))


def count_executors(spark: SparkSession) -> int:
    """Return how many executors live now; blocks for one call into the JVM."""
    tracker: Any = spark.sparkContext._jsc.sc().statusTracker()
    # The driver is told among them.
    return len(tracker.getExecutorInfos()) - 1
