"""Turn what role hosts wrote to the registry into events of the run. On the driver."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Set
from dataclasses import replace

from tfos import wire
from tfos.errors import RendezvousError
from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.launcher.driver.events import (
    Event,
    GroupEnded,
    MembersChanged,
    OutcomePublished,
    ProcessFailed,
)
from tfos.launcher.driver.notices import NoticeLog
from tfos.launcher.driver.role_groups import RoleGroup
from tfos.progress import RoleProgress
from tfos.registry.contract import Member, Registry
from tfos.topology import Life, Role, TaskKey

__all__ = ["RegistryReader"]


class RegistryReader:
    """Reads, and remembers what it has told; in the controller's thread.

    Every call raises RendezvousError when the registry does not answer; what could not be told then
    is told by the next call.

    Parameters
    ----------
    registry
        The driver's session.
    groups
        The role groups, to ask Spark how a task ended.

    Attributes
    ----------
    members
        The role hosts registered, as last read.
    last_hosts
        The host that played each role last, registered or not.
    """

    def __init__(self, registry: Registry, groups: Mapping[Role, RoleGroup]) -> None:
        self._registry = registry
        self._groups = groups
        self.members: dict[TaskKey, Member] = {}
        self.last_hosts: dict[TaskKey, Member] = {}
        self._retired: set[int] = set()
        self._least_attempts: dict[Role, int] = {}
        self._failed: frozenset[Life] = frozenset()
        self._furthest = -1
        self._notices = NoticeLog()

    def retire(self, key: TaskKey) -> Member | None:
        """Return the host that played a role last, and count it as gone from now on.

        For one whose task Spark is about to end: it may register again a moment before. None before
        the first.
        """
        last = self.last_hosts.get(key)
        if last is not None:
            self._retired.add(last.task)
        return last

    def is_gone(self, key: TaskKey) -> bool:
        """Whether the host that played a role last is known to be gone for good."""
        last = self.last_hosts.get(key)
        return last is not None and last.task in self._retired

    def retire_group(self, role: Role, attempt: int) -> None:
        """Count every host of a role as gone whose attempt is lower: it is not mentioned again."""
        self._least_attempts[role] = attempt
        self.members = {k: m for k, m in self.members.items() if self._counts(m)}

    def _counts(self, member: Member) -> bool:
        least = self._least_attempts.get(member.key.role, 0)
        return member.task not in self._retired and member.attempt >= least

    def group_ended(self, role: Role, failure: Failure | None, culprit: TaskKey | None) -> Event:
        """Tell of the end of a role group's Spark job; names the host that took the others along.

        Blocks for one reading of the registry where there is a failure; raises nothing, for it is
        told once.
        """
        if failure is None:
            return GroupEnded(role)
        member = None if culprit is None else self.last_hosts.get(culprit)
        if member is not None and self._counts(member):
            failure = _vanished(member, failure)
        with contextlib.suppress(RendezvousError):
            self.progress()
        return GroupEnded(role, failure, self._furthest, time.time())

    def outcomes(self, generation: int) -> list[Event]:
        """Read how roles ended in a generation, or before the first, which is number 0."""
        found = [
            document
            for number in {0, generation}
            for document in self._registry.outcomes(number).values()
        ]
        outcomes = [wire.from_json(Outcome, document) for document in found]
        for outcome in outcomes:
            self._notices.show(outcome.key, outcome.notices)
        return [OutcomePublished(outcome) for outcome in outcomes]

    def failures(self, lives: frozenset[Life]) -> list[Event]:
        """Read the failures of lives that were not told yet."""
        news = sorted(lives - self._failed)
        failures = [wire.from_json(Failure, self._registry.failure(life)) for life in news]
        furthest = self._furthest_step() if news else -1
        self._failed |= set(news)
        return [
            ProcessFailed(life, failure, max(furthest, failure.step), time.time())
            for life, failure in zip(news, failures, strict=True)
        ]

    def members_changed(self) -> list[Event]:
        """Read who is registered; tells of every host that is gone or was replaced."""
        found = self._registry.members()
        members = {k: m for k, m in found.items() if self._counts(m)}
        gone = [m for key, m in self.members.items() if members.get(key) != m]
        step = self._furthest_step() if gone else -1
        self.members = members
        self.last_hosts.update(members)
        lost = {member.key: self._lost(member) for member in gone}
        return [MembersChanged(frozenset(members), lost, step, time.time())]

    def hosts_lost(self, tasks: Set[int], generation: int) -> list[Event]:
        """Count the hosts of lost task attempts as gone from now on, though sessions live on.

        A host that had reported its end before is not missed: outcomes come first.
        """
        news = {member.task for member in self.members.values()} & tasks
        if not news:
            return []
        outcomes = self.outcomes(generation)
        self._retired |= news
        return [*outcomes, *self.members_changed()]

    def progress(self) -> dict[TaskKey, RoleProgress]:
        """Read how far the roles are, and remember the furthest step: a lost role takes its own.

        What they have for the run's log is logged.
        """
        found = self._registry.progress()
        progress = {key: wire.from_json(RoleProgress, each) for key, each in found.items()}
        for key, role in progress.items():
            self._notices.show(key, role.notices)
        steps = [role.progress.step for role in progress.values()]
        self._furthest = max([self._furthest, *steps])
        return progress

    def _furthest_step(self) -> int:
        self.progress()
        return self._furthest

    def _lost(self, member: Member) -> Failure:
        """Describe a role host that is gone, in Spark's words where it has any."""
        told = self._groups[member.key.role].task_failure(member.key.index, member.task)
        return _vanished(member, told)


def _vanished(member: Member, told: Failure | None) -> Failure:
    if told is not None and told.cause is Cause.USER_CODE:
        # The user's query failed; that its task went with it is only how it came out.
        key = str(member.key)
        return replace(told, key=key, host=member.host, pid=member.pid, logs=member.logs)
    container = f", container {member.executor}" if member.executor else ""
    left = "left without a word" if told is None else f"ended: {told.message}"
    return Failure(
        key=str(member.key),
        cause=Cause.INFRASTRUCTURE if told is None else told.cause,
        message=f"{member.key} vanished: its role host on {member.host} "
        f"(pid {member.pid}{container}) {left}",
        traceback="" if told is None else told.traceback,
        time=time.time(),
        host=member.host,
        pid=member.pid,
        hint="its executor or host was lost or killed; look for memory limits and preemption",
        logs=member.logs,
    )
