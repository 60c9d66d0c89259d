"""Decide what a run does next. Pure: a state and an event in, a new state and decisions out.

No clock, no I/O, no processes: the controller (`tfos.launcher.controller`) turns what it hears into
events and carries the decisions out. Restart policies will be rows added here.

REGISTERING -> TRAINING: every role is registered; the generation is frozen.
REGISTERING -> STOPPING: a role failed, the deadline passed, or the run was interrupted.
TRAINING -> STOPPING: every trainer is done, or any role failed, or time ran out, or interrupted.
STOPPING -> ENDED: every role group has ended, or would not even when cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from tfos.fault.failure import Cause, Failure, Outcome
from tfos.topology import Role, TaskKey

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
    "PublishGeneration",
    "RunState",
    "StopExpired",
    "StopRun",
    "Verdict",
    "first_cause",
    "transition",
]


class Phase(Enum):
    """Where a run is."""

    REGISTERING = "registering"
    TRAINING = "training"
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
    """The registered role hosts are now `members`; `vanished` describes each that went away."""

    members: frozenset[TaskKey]
    vanished: Mapping[TaskKey, Failure] = field(default_factory=dict)


@dataclass(frozen=True)
class OutcomePublished:
    """A role ended."""

    outcome: Outcome


@dataclass(frozen=True)
class GroupEnded:
    """A role group's Spark job ended, with a failure when Spark says so."""

    role: Role
    failure: Failure | None = None


@dataclass(frozen=True)
class Halted:
    """The driver gives the run up: a deadline, a signal, a lost registry."""

    verdict: Verdict
    failure: Failure


@dataclass(frozen=True)
class StopExpired:
    """The time a stop may take has passed."""


Event = MembersChanged | OutcomePublished | GroupEnded | Halted | StopExpired


# -- decisions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishGeneration:
    """Freeze the membership as generation `number`."""

    number: int


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


Decision = PublishGeneration | StopRun | CancelGroups | EndRun


# -- the machine -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunState:
    """Everything the decisions depend on.

    Parameters
    ----------
    expected
        Every role of the run.
    trainers
        Those that run ``train`` and end by themselves.
    open_groups
        Roles whose Spark job runs.
    cancelled
        Whether the groups have been cancelled already.
    failures
        Failures that decided or followed, as they became known.
    """

    expected: frozenset[TaskKey]
    trainers: frozenset[TaskKey]
    open_groups: frozenset[Role]
    phase: Phase = Phase.REGISTERING
    generation: int = 0
    verdict: Verdict | None = None
    cancelled: bool = False
    outcomes: Mapping[TaskKey, Outcome] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


Transition = tuple[RunState, tuple[Decision, ...]]


def transition(state: RunState, event: Event) -> Transition:
    """Return the state after `event`, and what is to be done about it, in order."""
    if state.phase is Phase.ENDED:
        return state, ()
    if isinstance(event, OutcomePublished):
        return _on_outcome(state, event.outcome)
    if isinstance(event, MembersChanged):
        return _on_members(state, event)
    if isinstance(event, GroupEnded):
        return _on_group_ended(state, event)
    if isinstance(event, Halted):
        return _stop(state, event.verdict, event.failure)
    return _on_stop_expired(state)


def first_cause(failures: tuple[Failure, ...]) -> Failure:
    """Return the failure that the others follow from: the first by time.

    A role that lost contact with a peer reports a consequence, even where its host's clock or the
    network made it the first to be heard.
    """
    return min(failures, key=lambda f: (f.cause is Cause.PEER_LOST, f.time))


def _stop(state: RunState, verdict: Verdict, failure: Failure) -> Transition:
    state = replace(state, failures=(*state.failures, failure))
    if state.phase is Phase.STOPPING:
        return state, ()
    stopping = replace(state, phase=Phase.STOPPING, verdict=verdict)
    return _ended_if_empty(stopping, StopRun(verdict, failure.message))


def _ended_if_empty(state: RunState, *decisions: Decision) -> Transition:
    if state.open_groups:
        return state, decisions
    return replace(state, phase=Phase.ENDED), (*decisions, EndRun())


def _on_outcome(state: RunState, outcome: Outcome) -> Transition:
    if outcome.key in state.outcomes:
        return state, ()
    state = replace(state, outcomes={**state.outcomes, outcome.key: outcome})
    if outcome.failure is not None:
        # Servers torn down after a finished training may complain: that harms nobody.
        if state.verdict is Verdict.DONE:
            return state, ()
        return _stop(state, Verdict.FAILED, outcome.failure)
    if state.phase is Phase.TRAINING and state.trainers <= state.outcomes.keys():
        stopping = replace(state, phase=Phase.STOPPING, verdict=Verdict.DONE)
        return _ended_if_empty(stopping, StopRun(Verdict.DONE, "training is done"))
    return state, ()


def _on_members(state: RunState, event: MembersChanged) -> Transition:
    if state.phase is Phase.REGISTERING and event.members >= state.expected:
        number = state.generation + 1
        training = replace(state, phase=Phase.TRAINING, generation=number)
        return training, (PublishGeneration(number),)
    if state.phase is Phase.TRAINING:
        lost = [f for key, f in sorted(event.vanished.items()) if key not in state.outcomes]
        if lost:
            state = replace(state, failures=(*state.failures, *lost[1:]))
            return _stop(state, Verdict.FAILED, lost[0])
    return state, ()


def _on_group_ended(state: RunState, event: GroupEnded) -> Transition:
    state = replace(state, open_groups=state.open_groups - {event.role})
    if state.phase is Phase.STOPPING:
        if event.failure is not None and state.verdict is Verdict.FAILED and not state.cancelled:
            state = replace(state, failures=(*state.failures, event.failure))
        return _ended_if_empty(state)
    if event.failure is not None:
        return _stop(state, Verdict.FAILED, event.failure)
    return state, ()


def _on_stop_expired(state: RunState) -> Transition:
    if state.phase is not Phase.STOPPING:
        return state, ()
    if not state.cancelled:
        return replace(state, cancelled=True), (CancelGroups(),)
    return replace(state, phase=Phase.ENDED), (EndRun(),)
