"""Give each role group containers of its own size: Spark's resource profiles. On the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfos.launcher.role_memory import divide_memory
from tfos.topology import RoleSpec

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

__all__ = ["profile_of"]


def profile_of(spark: SparkSession, spec: RoleSpec) -> ResourceProfile | None:
    """Return the profile of a role's executors; None for those of the application's own size.

    One role an executor: its task takes every core and GPU. What a role does not say is the
    application's. A gang has none: barrier execution refuses profiles' dynamic allocation.
    """
    from pyspark.resource import (
        ExecutorResourceRequests,
        ResourceProfileBuilder,
        TaskResourceRequests,
    )

    conf = spark.sparkContext.getConf()
    dynamic = conf.get("spark.dynamicAllocation.enabled", "false") == "true"
    if spec.gang or not dynamic or (spec.cores, spec.memory_bytes, spec.gpus) == (None, None, 0):
        return None
    cores = spec.cores or int(conf.get("spark.executor.cores", "1") or 1)
    executors = ExecutorResourceRequests().cores(cores)
    tasks = TaskResourceRequests().cpus(cores)
    if spec.memory_bytes is not None:
        parts = divide_memory(spec.memory_bytes)
        # Not pysparkMemory: it becomes a limit of the address space, in which TensorFlow's
        # libraries do not fit.
        executors = executors.memory(f"{parts.heap_mib}m").memoryOverhead(f"{parts.overhead_mib}m")
    if spec.gpus:
        script = conf.get("spark.executor.resource.gpu.discoveryScript", "") or ""
        executors = executors.resource("gpu", spec.gpus, script)
        tasks = tasks.resource("gpu", spec.gpus)
    return ResourceProfileBuilder().require(executors).require(tasks).build
