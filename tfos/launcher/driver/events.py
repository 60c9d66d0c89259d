"""Name what a run hears and what it decides: its phases, events and decisions. Pure data.

What leads from the ones to the others is `tfos.launcher.driver.state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tfos.fault.failures.record import Failure, Outcome
from tfos.topology import Life, Role, TaskKey

__all__ = [
    "CancelGroups",
    "Decision",
    "EndRun",
    "Event",
    "GroupEnded",
    "Halted",
    "MembersChanged",
    "OutcomePublished",
    "Phase",
    "ProcessFailed",
    "PublishGeneration",
    "RerunTask",
    "RespawnProcess",
    "ResubmitGroup",
    "StopExpired",
    "StopRun",
    "Verdict",
]


class Phase(Enum):
    """Where a run is."""

    REGISTERING = "registering"
    TRAINING = "training"
    RECOVERING = "recovering"
    STOPPING = "stopping"
    ENDED = "ended"


class Verdict(str, Enum):
    """How a run ends."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


# -- events ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MembersChanged:
    """The registered role hosts are now `members`.

    `lost` describes each host that is gone; one whose key is a member was replaced meanwhile.
    `step` and `at` as for `ProcessFailed`.
    """

    members: frozenset[TaskKey]
    lost: Mapping[TaskKey, Failure] = field(default_factory=dict)
    step: int = -1
    at: float = 0.0


@dataclass(frozen=True)
class ProcessFailed:
    """A life of a role's training process failed; its host is there to start the next.

    `step` is the furthest step of the run known, -1 before the first; `at` is now, seconds since
    the epoch.
    """

    life: Life
    failure: Failure
    step: int = -1
    at: float = 0.0


@dataclass(frozen=True)
class OutcomePublished:
    """A role ended for good: done, or its host failed."""

    outcome: Outcome


@dataclass(frozen=True)
class GroupEnded:
    """A role group's Spark job ended, with a failure when Spark says so.

    `step` and `at` as for `ProcessFailed`.
    """

    role: Role
    failure: Failure | None = None
    step: int = -1
    at: float = 0.0


@dataclass(frozen=True)
class Halted:
    """The driver gives the run up: a deadline, a signal, a lost registry."""

    verdict: Verdict
    failure: Failure


@dataclass(frozen=True)
class StopExpired:
    """The time a stop may take has passed."""


Event = MembersChanged | ProcessFailed | OutcomePublished | GroupEnded | Halted | StopExpired


# -- decisions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishGeneration:
    """Freeze the membership as generation `number`: every process starts, or starts again."""

    number: int


@dataclass(frozen=True)
class RespawnProcess:
    """Have a role host start its process again, as `life`."""

    life: Life


@dataclass(frozen=True)
class RerunTask:
    """Have Spark end the task of a role host that went silent, and run it again.

    The task of a gang takes the others with it; how their Spark job ends is heard next.
    """

    key: TaskKey


@dataclass(frozen=True)
class ResubmitGroup:
    """Submit a gang's Spark job again; no host of the one before counts any more."""

    role: Role


@dataclass(frozen=True)
class StopRun:
    """Tell every role host to stop."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class CancelGroups:
    """Cancel the Spark jobs of the role groups that have not ended."""


@dataclass(frozen=True)
class EndRun:
    """The run is over."""


Decision = (
    PublishGeneration | RespawnProcess | RerunTask | ResubmitGroup | StopRun | CancelGroups | EndRun
)
