"""Give each role group containers of its own size: Spark's resource profiles. On the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfos.launcher.platform.role_memory import DEFAULT_MEMORY_BYTES, divide_memory
from tfos.launcher.platform.role_tasks import allocates_dynamically
from tfos.master import Master
from tfos.topology import RoleSpec

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

__all__ = ["profile_of"]


def profile_of(spark: SparkSession, spec: RoleSpec) -> ResourceProfile | None:
    """Return the profile of a role's executors; None where all executors are alike.

    One role an executor: its task takes every core and GPU. They are alike without containers, and
    for a gang: barrier execution refuses the dynamic allocation that profiles need.
    """
    from pyspark.resource import (
        ExecutorResourceRequests,
        ResourceProfileBuilder,
        TaskResourceRequests,
    )

    conf = dict(spark.sparkContext.getConf().getAll())
    dynamic = allocates_dynamically(conf, unset=False)
    if spec.gang or not (dynamic and Master(str(spark.sparkContext.master)).in_containers):
        return None
    cores = spec.cores or 1
    executors = ExecutorResourceRequests().cores(cores)
    tasks = TaskResourceRequests().cpus(cores)
    parts = divide_memory(spec.memory_bytes or DEFAULT_MEMORY_BYTES)
    # Not pysparkMemory: it becomes a limit of the address space, in which TensorFlow's libraries
    # do not fit.
    executors = executors.memory(f"{parts.heap_mib}m").memoryOverhead(f"{parts.overhead_mib}m")
    if spec.gpus:
        script = conf.get("spark.executor.resource.gpu.discoveryScript", "")
        # Kubernetes takes it from the profile alone.
        vendor = conf.get("spark.executor.resource.gpu.vendor", "")
        executors = executors.resource("gpu", spec.gpus, script, vendor)
        tasks = tasks.resource("gpu", spec.gpus)
    return ResourceProfileBuilder().require(executors).require(tasks).build
