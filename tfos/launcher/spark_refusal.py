"""Say in tfos's own words why Spark or YARN did not take a submission, or ended it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from tfos.config import JobConfig
from tfos.errors import (
    ConfigError,
    InfrastructureError,
    InsufficientExecutorsError,
    InterruptedRunError,
    LaunchError,
    TfosError,
)
from tfos.launcher.submission import master_kind
from tfos.launcher.yarn_client import YarnClient

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["explain_refusal", "explain_stop", "is_stopped", "stopped_by_others"]

log = logging.getLogger(__name__)

_TOO_LARGE: Final = re.compile(
    r"Required (?P<who>executor|AM) memory \((?P<memory>\d+)(?: MB)?\).{0,200}?above the max "
    r"threshold \((?P<limit>\d+) MB\)",
    re.DOTALL,
)
_QUEUE: Final = re.compile(
    r"unknown queue|non-leaf queue|cannot submit applications? to queue", re.I
)
_KILLED: Final = re.compile(r"\bkilled by user\b", re.I)
_UNREACHABLE: Final = re.compile(
    r"ConnectException|Connection refused|NoRouteToHost|UnknownHostException|RetriesExhausted"
    r"|Failed on local exception|failed on socket timeout",
    re.I,
)


def explain_refusal(said: str, config: JobConfig) -> TfosError:
    """Return the error that Spark's words amount to, as it was about to start. Pure."""
    if found := _TOO_LARGE.search(said):
        return _too_large(found["who"], int(found["memory"]), int(found["limit"]))
    if _QUEUE.search(said):
        queue = config.spark.queue
        given = "the cluster's default queue" if queue is None else f"--queue {queue}"
        return ConfigError(f"{given} does not take the application: {_line(said, _QUEUE)}")
    if _KILLED.search(said):
        return InterruptedRunError(f"the application was killed in YARN: {_line(said, _KILLED)}")
    if _UNREACHABLE.search(said):
        return InfrastructureError(
            f"the cluster of HADOOP_CONF_DIR does not answer: {_line(said, _UNREACHABLE)}"
        )
    last = [line.strip() for line in said.splitlines() if "Exception" in line or "Error" in line]
    return LaunchError(f"Spark did not start: {(last or ['it did not say why'])[0][:500]}")


def is_stopped(spark: SparkSession) -> bool:
    """Whether nothing more can run on a session; blocks for one call into the JVM."""
    from py4j.protocol import Py4JError

    try:
        return _stopped_here(spark) or bool(spark.sparkContext._jsc.sc().isStopped())
    except (Py4JError, OSError):
        return True  # with its JVM


def stopped_by_others(spark: SparkSession) -> bool:
    """Whether Spark was stopped by what surrounds this program; blocks as `is_stopped`.

    Spark stops its own context when its application has ended in the cluster.
    """
    return not _stopped_here(spark) and is_stopped(spark)


def _stopped_here(spark: SparkSession) -> bool:
    # So PySpark marks a context of which ``stop`` was called.
    return spark.sparkContext._jsc is None


def explain_stop(spark: SparkSession) -> TfosError:
    """Return the error that a stopped Spark amounts to; asks YARN, and waits for its answer."""
    context = spark.sparkContext
    try:
        if master_kind(str(context.master)) == "yarn":
            application = str(context.applicationId)
            if YarnClient(spark._jvm).status(application).state == "KILLED":
                return InterruptedRunError(f"{application} was killed in YARN")
    except Exception as error:
        log.debug("YARN does not tell how the application ended: %s", error)
    return InfrastructureError(
        "Spark was stopped by somebody else: its application ended in the cluster, or the session "
        "was stopped"
    )


def _too_large(who: str, memory: int, limit: int) -> TfosError:
    what, options = "the largest role's containers", "--chief-, --worker- or --ps-memory"
    if who == "AM":
        what, options = "the driver's container", "--spark-conf spark.driver.memory"
    return InsufficientExecutorsError(
        f"{what} cannot be had: the heap alone is {memory} MiB, and this cluster gives no "
        f"container more than {limit} MiB in all (yarn.scheduler.maximum-allocation-mb); lower "
        f"{options}",
        needed=memory,
        available=limit,
    )


def _line(said: str, pattern: re.Pattern[str]) -> str:
    line = next(line.strip() for line in said.splitlines() if pattern.search(line))
    return line[:500]
