from __future__ import annotations

import pytest

from tfos.launcher.platform.role_memory import (
    LEAST_MEMORY_BYTES,
    divide_memory,
    has_room_for_standby,
    jvm_ran_out_of_memory,
    memory_used_when_killed,
)

GIB = 1 << 30


@pytest.mark.parametrize("gib", [1.25, 1.5, 2, 3, 4, 8, 64])
def test_the_parts_add_up_and_leave_tensorflow_more_than_the_heap(gib):
    heap, overhead = divide_memory(int(gib * GIB))
    assert heap + overhead == int(gib * 1024)
    # Spark wants 450 MiB of heap at least.
    assert 450 <= heap < overhead


def test_a_standby_needs_room():
    assert has_room_for_standby(None)
    assert has_room_for_standby(4 * GIB)
    assert not has_room_for_standby(LEAST_MEMORY_BYTES)


@pytest.mark.parametrize(
    ("said", "used"),
    [
        (
            "ExecutorLostFailure (executor 3 exited caused by one of the running tasks) Reason: "
            "Container killed by YARN for exceeding physical memory limits. 1.0 GB of 1 GB "
            "physical memory used. Consider boosting spark.executor.memoryOverhead.",
            "1.0 GB of 1 GB",
        ),
        (
            "Container killed by YARN for exceeding memory limits. 2 GB of 1 GB used.",
            "2 GB of 1 GB",
        ),
        (
            "Container [pid=9,containerID=container_17_0001_01_000001] is running 65MB beyond the "
            "'PHYSICAL' memory limit. Current usage: 2.1 GB of 2 GB physical memory used; 4.5 GB "
            "of 4.2 GB virtual memory used. Killing container.",
            "2.1 GB of 2 GB",
        ),
        ("The executor with id 4 exited with exit code 137(SIGKILL, possible OOMKilled)", "more"),
        ("ExecutorLostFailure (executor 1 exited) Reason: Remote RPC client disassociated", None),
    ],
)
def test_what_killed_containers_used(said, used):
    assert memory_used_when_killed(said) == used


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        (
            "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: "
            "Command exited with code 52",
            True,
        ),
        ("Container from a bad node: c on host: h. Exit status: 52. Diagnostics: []", True),
        ("The executor with id 4 exited with exit code 52(JVM OOM).", True),
        ("Caused by: java.lang.OutOfMemoryError: Java heap space", True),
        ("java.lang.OutOfMemoryError: GC overhead limit exceeded", True),
        ("java.lang.OutOfMemoryError: unable to create native thread", False),
        ("Command exited with code 521", False),
        ("Command '['x']' returned non-zero exit status 52.", False),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory", False),
    ],
)
def test_a_jvm_out_of_memory_is_known_by_sparks_words(said, is_so):
    assert jvm_ran_out_of_memory(said) is is_so
