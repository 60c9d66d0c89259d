"""Tell whether Spark was stopped under a run, and by whom. On the driver."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tfos.errors import InfrastructureError, InterruptedRunError, TfosError
from tfos.launcher.platform.yarn_client import YarnClient
from tfos.master import Master

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["explain_stop", "is_stopped", "stopped_by_others", "stopped_here"]

log = logging.getLogger(__name__)


def is_stopped(spark: SparkSession) -> bool:
    """Whether nothing more can run on a session; blocks for one call into the JVM."""
    from py4j.protocol import Py4JError

    try:
        return stopped_here(spark) or bool(spark.sparkContext._jsc.sc().isStopped())
    except (Py4JError, OSError):
        return True  # with its JVM


def stopped_by_others(spark: SparkSession) -> bool:
    """Whether Spark was stopped by what surrounds this program; blocks as `is_stopped`.

    Spark stops its own context when its application has ended in the cluster.
    """
    return not stopped_here(spark) and is_stopped(spark)


def stopped_here(spark: SparkSession) -> bool:
    """Whether this program stopped it."""
    # So PySpark marks a context of which ``stop`` was called.
    return spark.sparkContext._jsc is None


def explain_stop(spark: SparkSession) -> TfosError:
    """Return the error that a stopped Spark amounts to; asks YARN, and waits for its answer."""
    context = spark.sparkContext
    try:
        if Master(str(context.master)).kind == "yarn":
            application = str(context.applicationId)
            if YarnClient(spark._jvm).status(application).state == "KILLED":
                return InterruptedRunError(f"{application} was killed in YARN")
    except Exception as error:
        log.debug("YARN does not tell how the application ended: %s", error)
    return InfrastructureError(
        "Spark was stopped by somebody else: its application ended in the cluster, or the session "
        "was stopped"
    )
