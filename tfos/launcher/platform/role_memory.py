"""Divide the memory a role may use, on YARN and Kubernetes, between its JVM and all else. Pure.

A container holds the executor's JVM, which moves rows, the Python worker that is the role host, and
the training process with its standby: TensorFlow lives outside the heap, in what Spark calls
overhead. A quarter becomes the heap (``spark.executor.memory``), at least 512 MiB; the rest is
overhead (``spark.executor.memoryOverhead``).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = [
    "DEFAULT_MEMORY_BYTES",
    "JVM_MEMORY_ADVICE",
    "LEAST_MEMORY_BYTES",
    "MemoryParts",
    "divide_memory",
    "has_room_for_standby",
    "jvm_ran_out_of_memory",
    "memory_used_when_killed",
]

_MIB: Final = 1 << 20
_LEAST_HEAP_BYTES: Final = 512 * _MIB

LEAST_MEMORY_BYTES: Final = 1280 * _MIB
"""What a role needs that does nothing yet.

Measured on YARN with TensorFlow 2.21, by resident memory, as YARN counts it: 373 MB of a JVM whose
heap is 512 MiB, 150 of Python workers, 570 of a parameter server that has imported TensorFlow.
"""

DEFAULT_MEMORY_BYTES: Final = 4096 * _MIB
"""What a role gets that does not say."""

_STANDBY_FROM_BYTES: Final = 3072 * _MIB
"""YARN counts every page a process maps, shared or not: a standby costs 500 MB there."""


class MemoryParts(NamedTuple):
    """What Spark is told, MiB."""

    heap_mib: int
    overhead_mib: int


def divide_memory(memory_bytes: int) -> MemoryParts:
    """Return the heap and the overhead that add up to what a role may use in all."""
    heap = min(max(memory_bytes // 4, _LEAST_HEAP_BYTES), memory_bytes)
    return MemoryParts(heap // _MIB, (memory_bytes - heap) // _MIB)


def has_room_for_standby(memory_bytes: int | None) -> bool:
    """Say whether a second process with TensorFlow fits; None for memory without a limit."""
    return memory_bytes is None or memory_bytes >= _STANDBY_FROM_BYTES


# YARN's words as Spark passes them on; a NodeManager's own; Kubernetes' reason of an end.
_KILLED: Final = re.compile(
    r"(?:exceeding (?:physical|virtual)? ?memory limits\.|"
    r"beyond the '(?:PHYSICAL|VIRTUAL)' memory limit\. Current usage:)"
    r"\s*(?P<used>[\d.]+ \w+ of [\d.]+ \w+)|OOMKilled"
)


def memory_used_when_killed(message: str) -> str | None:
    """Return what a container used when it was killed for its memory, as ``1.6 GB of 1.5 GB``.

    None when `message`, of Spark or a NodeManager, tells of no such end; "more" when it does not
    say how much.
    """
    found = _KILLED.search(message)
    if found is None:
        return None
    return found["used"] or "more"


# Spark ends an executor whose JVM is out of memory with SparkExitCode.OOM, 52.
_JVM_FULL: Final = re.compile(
    r"java\.lang\.OutOfMemoryError: (?!unable to create)"
    r"|(?:Command exited with code|Exit status:|exited with exit code) 52\b"
)
JVM_MEMORY_ADVICE: Final = (
    "raise spark.driver.memory with --master local, spark.executor.memory on other masters (by "
    "--spark-conf), or --chief-, --worker- or --ps-memory on YARN and Kubernetes; or have "
    "pre_train make smaller partitions and rows"
)
"""What gives the JVM that ran out of memory more of it."""


def jvm_ran_out_of_memory(message: str) -> bool:
    """Whether `message`, of Spark, tells of a JVM that ran out of memory."""
    return _JVM_FULL.search(message) is not None
