"""Decide what answers a failure: replace one process, start a new generation, or stop. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tfos.fault.failures.record import Cause, Failure, first_cause

__all__ = ["NO_RESTARTS", "Incident", "IncidentRecord", "Reaction", "RestartBudget", "react"]


class Reaction(str, Enum):
    """What is done about a failure."""

    RESPAWN = "respawn"
    """The role's process is replaced in place; all others go on."""
    NEW_GENERATION = "new_generation"
    """Every process starts again, from the latest complete checkpoint."""
    STOP = "stop"
    """The run ends."""


@dataclass(frozen=True)
class RestartBudget:
    """How many restarts are allowed in any `window_s` seconds."""

    max_restarts: int
    window_s: float


_FINAL = (
    Cause.CONFIG,
    Cause.DATA,
    Cause.MEMORY,
    Cause.STORAGE,
    Cause.TIMEOUT,
    Cause.INTERRUPTED,
)
"""What a restart would meet again, or does not answer."""

NO_RESTARTS = RestartBudget(0, 1.0)
"""The first failure ends the run."""


@dataclass(frozen=True)
class Incident:
    """A failure that a restart answered.

    Parameters
    ----------
    failure
        The failure that decided.
    reaction
        What answered it.
    generation
        The generation it happened in.
    step
        The furthest step of the run known then, -1 before the first.
    at
        When it was decided, seconds since the epoch on the driver.
    followed_by
        Failures heard of later that belong to the same generation: most often its consequences.
    """

    failure: Failure
    reaction: Reaction
    generation: int
    step: int
    at: float
    followed_by: tuple[Failure, ...] = ()

    @property
    def cause(self) -> Failure:
        """The failure the others follow from."""
        return first_cause((self.failure, *self.followed_by))

    def record(self, recovered_s: float | None = None) -> IncidentRecord:
        """Return it for the run's record; `recovered_s` as there."""
        others = (f for f in (self.failure, *self.followed_by) if f is not self.cause)
        return IncidentRecord(
            reaction=self.reaction,
            generation=self.generation,
            step=self.step,
            at=self.at,
            failures=(self.cause, *others),
            recovered_s=recovered_s,
        )


@dataclass(frozen=True)
class IncidentRecord:
    """An incident as the run's record has it.

    Parameters
    ----------
    reaction, generation, step, at
        As of `Incident`.
    failures
        The cause first.
    recovered_s
        Seconds from the failure until all stepped again; None where unknown.
    """

    reaction: Reaction
    generation: int
    step: int
    at: float
    failures: tuple[Failure, ...]
    recovered_s: float | None = None

    def __str__(self) -> str:
        """Return one line for people."""
        cause = self.failures[0]
        done = "its process was replaced"
        if self.reaction is Reaction.NEW_GENERATION:
            done = "all started again from the latest checkpoint"
        return f"step {max(self.step, 0)}, {cause.key}: {cause.message} -> {done}"


def react(
    failure: Failure,
    *,
    respawns: bool,
    step: int,
    at: float,
    incidents: Sequence[Incident],
    budget: RestartBudget,
) -> tuple[Reaction, str]:
    """Return what answers a failure and, for a stop, why nothing better does (may be empty).

    Parameters
    ----------
    failure
        What happened.
    respawns
        Whether the role's process can be replaced while all others go on.
    step
        The furthest step of the run known, -1 before the first.
    at
        Now, seconds since the epoch.
    incidents
        The restarts so far, oldest first.
    budget
        How many are allowed.
    """
    if failure.cause in _FINAL or budget.max_restarts == 0:
        return Reaction.STOP, ""
    if failure.lasting or (failure.cause is Cause.USER_CODE and failure.step <= 0):
        return Reaction.STOP, ""
    if _stuck(failure, step, incidents):
        return Reaction.STOP, (
            f"it failed again without getting past step {max(step, 0)}: starting it once more "
            "would end the same way"
        )
    recent = sum(incident.at > at - budget.window_s for incident in incidents)
    if recent >= budget.max_restarts:
        return Reaction.STOP, (
            f"{recent} restarts in {budget.window_s:g} s are all that --max-restarts "
            f"{budget.max_restarts} allows"
        )
    # Who lost a peer is rarely the one to replace: where every worker of a dead parameter server
    # says so, one new generation answers all of them.
    if respawns and failure.cause is not Cause.PEER_LOST:
        return Reaction.RESPAWN, ""
    return Reaction.NEW_GENERATION, ""


def _stuck(failure: Failure, step: int, incidents: Sequence[Incident]) -> bool:
    """Whether the role failed before and the run has not come further since.

    Or another role, by the very same error of the user's: under a ring all do the same.

    What the cluster does to a role (a lost host, a lost session) says nothing about the step,
    neither now nor then.
    """
    if not incidents:
        return False
    last = incidents[-1]
    if Cause.INFRASTRUCTURE in (failure.cause, last.failure.cause):
        return False
    own = failure.cause is Cause.USER_CODE and last.failure.cause is Cause.USER_CODE
    same_error = own and last.failure.message == failure.message
    return (last.failure.key == failure.key or same_error) and step <= last.step
