"""Bring lost role hosts back: wait for them a moment, then have Spark start others. On the driver.

One whose session expired comes back by itself, with its spool; one that died Spark runs again
unasked; one that hangs, or is cut off from ZooKeeper, would hold its task for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from tfos.fault.failures.record import Cause, Failure
from tfos.launcher.driver.registry_events import RegistryReader
from tfos.launcher.driver.role_groups import GroupReport, RoleGroup
from tfos.launcher.driver.task_attempts import LostAttempt
from tfos.launcher.platform.role_memory import (
    JVM_MEMORY_ADVICE,
    jvm_ran_out_of_memory,
    memory_used_when_killed,
)
from tfos.registry.contract import Member
from tfos.topology import Role, RoleSpec, TaskKey

__all__ = ["ASK_EVERY_S", "RETURN_WITHIN_S", "LostHosts", "SparkLoss", "out_of_memory"]

log = logging.getLogger(__name__)

RETURN_WITHIN_S = 3.0
"""How long a lost role host may take to register again before Spark is asked to replace it."""

ASK_EVERY_S = 0.5
"""How often Spark is asked whom it has lost."""

SparkLoss: TypeAlias = "tuple[RoleSpec, LostAttempt]"
"""A lost task attempt, and whose it was."""


class LostHosts:
    """In the controller's thread; no call blocks for longer than a few into Spark.

    Parameters
    ----------
    groups
        The role groups.
    told
        Who was registered.
    """

    def __init__(self, groups: Mapping[Role, RoleGroup], told: RegistryReader) -> None:
        self._groups = groups
        self._told = told
        self._rerun_at: dict[TaskKey, float] = {}
        self._lost: Sequence[SparkLoss] = ()
        self._ask_at = 0.0

    def await_return(self, key: TaskKey) -> None:
        """Give a role host its time to come back; what is done after it, `look` does.

        One whose task Spark has lost cannot: the task is run again unasked, a gang's by the
        driver, which submits all of them.
        """
        if self._told.is_gone(key):
            log.warning("%s is lost: its task is run again", key)
            return
        log.warning("%s is lost: waiting for it to come back", key)
        self._rerun_at[key] = time.monotonic() + RETURN_WITHIN_S

    def look(self) -> None:
        """Have Spark end the tasks of those whose time is over.

        It runs such a task again; that of a gang takes the others with it, and the gang's job ends.
        """
        now = time.monotonic()
        for key in [key for key, at in self._rerun_at.items() if now >= at]:
            del self._rerun_at[key]
            if key in self._told.members:
                continue
            last = self._told.retire(key)
            if last is not None:
                log.warning("%s has not come back: Spark is to run its task again", key)
                self._groups[key.role].kill_task(last.task)

    def lost_attempts(self) -> Sequence[SparkLoss]:
        """Ask Spark which task attempts it has lost; blocks for a few calls into the JVM.

        Asked again sooner than `ASK_EVERY_S` after, it repeats itself: thousands of roles may
        register in a second.
        """
        now = time.monotonic()
        if now >= self._ask_at:
            groups = self._groups.values()
            self._lost = [(group.spec, a) for group in groups for a in group.lost_attempts()]
            self._ask_at = now + ASK_EVERY_S
        return self._lost

    def resubmit(self, role: Role, on_end: Callable[[GroupReport], None]) -> None:
        """Submit a gang again; its hosts so far count as gone, though their sessions live on."""
        log.warning("submitting the %s tasks again, all together", role)
        self._rerun_at = {key: at for key, at in self._rerun_at.items() if key.role != role}
        self._told.retire_group(role, self._groups[role].resubmit(on_end))


def out_of_memory(
    lost: Iterable[SparkLoss], last_hosts: Mapping[TaskKey, Member]
) -> Failure | None:
    """Find a container killed for its memory, or a JVM that had too little.

    Started again it would end the same way.
    """
    for spec, attempt in lost:
        used = memory_used_when_killed(attempt.message)
        if used is not None:
            key = TaskKey(spec.role, attempt.index)
            host = last_hosts.get(key)
            # It may have been killed before it registered: then this is the one before it.
            itself = host is not None and host.task == attempt.task
            return _out_of_memory(spec, key, used, host if itself else None)
        if jvm_ran_out_of_memory(attempt.message):
            return Failure(
                key=str(TaskKey(spec.role, attempt.index)),
                cause=Cause.MEMORY,
                message="the JVM of its executor ran out of memory and ended (exit code 52)",
                time=time.time(),
                hint=JVM_MEMORY_ADVICE,
            )
    return None


def _out_of_memory(spec: RoleSpec, key: TaskKey, used: str, host: Member | None) -> Failure:
    given = "" if spec.memory_bytes is None else f" {spec.memory_bytes >> 20} MiB,"
    return Failure(
        key=str(key),
        cause=Cause.MEMORY,
        message=f"{key} used more memory than its container has, and was killed by "
        f"the cluster: {used}",
        time=time.time(),
        hint=f"raise --{spec.role}-memory:{given} which JVM, Python and TensorFlow share, is too "
        "little for this model and batch size; a smaller feed.memory_bytes helps too",
        logs="" if host is None else host.logs,
    )
