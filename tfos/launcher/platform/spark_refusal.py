"""Say in tfos's own words why Spark or YARN did not take a submission. Pure."""

from __future__ import annotations

import re
from typing import Final

from tfos.config import JobConfig
from tfos.errors import (
    ConfigError,
    InfrastructureError,
    InsufficientExecutorsError,
    InterruptedRunError,
    LaunchError,
    TfosError,
)

__all__ = ["explain_refusal"]

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
    """Return the error that Spark's words amount to, as it was about to start."""
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
