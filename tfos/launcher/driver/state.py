"""Decide what a run does next. Pure: a state and an event in, a new state and decisions out.

No clock, no I/O, no processes: the controller (`tfos.launcher.driver.controller`) turns what it
hears into events and carries the decisions out. `tfos.fault.failures.restart_policy` says what
answers a failure.

REGISTERING -> TRAINING: every role is registered; the generation is frozen.
TRAINING -> TRAINING: a process that respawns died; it alone is replaced.
TRAINING -> RECOVERING: any other process died, or a role host was lost.
RECOVERING -> TRAINING: every role is registered (at once, if no host was lost): next generation.
TRAINING, RECOVERING -> RECOVERING: a gang's Spark job ended by the cluster's failure; it is
    submitted again. While REGISTERING it is, too.
any of these -> STOPPING: every trainer is done; a failure no restart answers; a deadline; an end
    asked for.
STOPPING -> ENDED: every role group has ended, or would not even when cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.fault.failures.restart_policy import NO_RESTARTS, Incident, Reaction, RestartBudget, react
from tfos.launcher.driver.events import (
    CancelGroups,
    Decision,
    EndRun,
    Event,
    GroupEnded,
    Halted,
    MembersChanged,
    OutcomePublished,
    Phase,
    ProcessFailed,
    PublishGeneration,
    RerunTask,
    RespawnProcess,
    ResubmitGroup,
    StopRun,
    Verdict,
)
from tfos.topology import Life, Role, TaskKey

__all__ = ["RunState", "transition"]


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
    respawning
        Roles whose process is replaced in place.
    budget
        How many restarts are allowed.
    gangs
        Roles whose Spark job ends when one of their hosts is lost, and is submitted again.
    members
        The role hosts registered now.
    failing
        Gangs a host of which was lost: that was answered, the end of their Spark job follows.
    respawns
        How often each role's process has been replaced in this generation.
    cancelled
        Whether the groups have been cancelled already.
    outcomes
        How roles ended in this generation.
    incidents
        The failures that restarts answered, oldest first.
    failures
        Failures that ended the run or followed from its end, as they became known.
    """

    expected: frozenset[TaskKey]
    trainers: frozenset[TaskKey]
    open_groups: frozenset[Role]
    respawning: frozenset[Role] = frozenset()
    budget: RestartBudget = NO_RESTARTS
    gangs: frozenset[Role] = frozenset()
    phase: Phase = Phase.REGISTERING
    generation: int = 0
    verdict: Verdict | None = None
    cancelled: bool = False
    members: frozenset[TaskKey] = frozenset()
    failing: frozenset[Role] = frozenset()
    respawns: Mapping[TaskKey, int] = field(default_factory=dict)
    outcomes: Mapping[TaskKey, Outcome] = field(default_factory=dict)
    incidents: tuple[Incident, ...] = ()
    failures: tuple[Failure, ...] = ()

    def life_of(self, key: TaskKey) -> Life:
        """Return the life that a role's process is to live now."""
        return Life(key, self.generation, self.respawns.get(key, 0))


Transition = tuple[RunState, tuple[Decision, ...]]


def transition(state: RunState, event: Event) -> Transition:
    """Return the state after `event`, and what is to be done about it, in order."""
    if state.phase is Phase.ENDED:
        return state, ()
    if isinstance(event, OutcomePublished):
        return _on_outcome(state, event.outcome)
    if isinstance(event, ProcessFailed):
        return _on_process_failed(state, event)
    if isinstance(event, MembersChanged):
        return _on_members(state, event)
    if isinstance(event, GroupEnded):
        return _on_group_ended(state, event)
    if isinstance(event, Halted):
        return _stop(state, event.verdict, event.failure)
    return _on_stop_expired(state)


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
    stopped = outcome.failure is None and not outcome.done
    if stopped and state.phase is not Phase.STOPPING:
        return state, ()
    state = replace(state, outcomes={**state.outcomes, outcome.key: outcome})
    if outcome.failure is not None:
        # Servers torn down after a finished training may complain: that harms nobody.
        if state.verdict is Verdict.DONE:
            return state, ()
        return _stop(state, Verdict.FAILED, outcome.failure)
    training = state.phase in (Phase.TRAINING, Phase.RECOVERING)
    if training and state.trainers <= state.outcomes.keys():
        stopping = replace(state, phase=Phase.STOPPING, verdict=Verdict.DONE)
        return _ended_if_empty(stopping, StopRun(Verdict.DONE, "training is done"))
    return state, ()


def _on_process_failed(state: RunState, event: ProcessFailed) -> Transition:
    key = event.life.key
    if state.phase is Phase.STOPPING:
        if state.verdict is Verdict.FAILED:
            state = replace(state, failures=(*state.failures, event.failure))
        return state, ()
    current = event.life == state.life_of(key) and key not in state.outcomes
    if state.phase is not Phase.TRAINING or not current:
        return _followed_by(state, event.life.generation, event.failure), ()
    respawns = key.role in state.respawning and key in state.members
    state, reaction, failure = _answer(state, event.failure, respawns, event.step, event.at)
    if reaction is Reaction.STOP:
        return _stop(state, Verdict.FAILED, failure)
    if reaction is Reaction.RESPAWN:
        count = state.respawns.get(key, 0) + 1
        state = replace(state, respawns={**state.respawns, key: count})
        return state, (RespawnProcess(state.life_of(key)),)
    return _recover(state)


def _on_members(state: RunState, event: MembersChanged) -> Transition:
    state = replace(state, members=event.members)
    if state.phase in (Phase.REGISTERING, Phase.RECOVERING):
        state = _followed_by(state, state.generation, *event.lost.values())
        gone = event.lost.keys() - event.members
        state, published = _generation_if_complete(state)
        return state, (*_reruns(state, gone), *published)
    # A role that is done needs its host no more.
    lost = [f for key, f in sorted(event.lost.items()) if key not in state.outcomes]
    if state.phase is not Phase.TRAINING or not lost:
        return state, ()
    state, reaction, failure = _answer(state, lost[0], False, event.step, event.at)
    if reaction is Reaction.STOP:
        state = replace(state, failures=(*state.failures, *lost[1:]))
        return _stop(state, Verdict.FAILED, failure)
    failing = {key.role for key in event.lost if key not in state.outcomes} & state.gangs
    state = replace(state, failing=state.failing | failing)
    return _recover(_followed_by(state, state.generation, *lost[1:]))


def _recover(state: RunState) -> Transition:
    """Begin the next generation; a host that was let go because its role was done is needed too."""
    gone = state.expected - state.members
    state, published = _generation_if_complete(replace(state, phase=Phase.RECOVERING))
    return state, (*_reruns(state, gone), *published)


def _reruns(state: RunState, gone: Set[TaskKey]) -> tuple[Decision, ...]:
    if state.budget.max_restarts == 0:
        return ()
    return tuple(RerunTask(key) for key in sorted(gone))


def _generation_if_complete(state: RunState) -> Transition:
    if not state.members >= state.expected:
        return state, ()
    number = state.generation + 1
    training = replace(
        state,
        phase=Phase.TRAINING,
        generation=number,
        failing=frozenset(),
        respawns={},
        outcomes={},
    )
    return training, (PublishGeneration(number),)


def _answer(
    state: RunState, failure: Failure, respawns: bool, step: int, at: float
) -> tuple[RunState, Reaction, Failure]:
    """Judge a failure; one that a restart answers becomes an incident.

    The failure comes back with the reason of a stop added to its hint.
    """
    reaction, why = react(
        failure,
        respawns=respawns,
        step=step,
        at=at,
        incidents=state.incidents,
        budget=state.budget,
    )
    if reaction is Reaction.STOP:
        hint = "; ".join(text for text in (why, failure.hint) if text)
        return state, reaction, replace(failure, hint=hint)
    incident = Incident(failure, reaction, state.generation, step, at)
    return replace(state, incidents=(*state.incidents, incident)), reaction, failure


def _followed_by(state: RunState, generation: int, *failures: Failure) -> RunState:
    """Keep failures that decide nothing with the latest incident of their generation, if any."""
    incidents = list(state.incidents)
    for index, incident in reversed(list(enumerate(incidents))):
        if incident.generation == generation:
            followed_by = (*incident.followed_by, *failures)
            incidents[index] = replace(incident, followed_by=followed_by)
            break
    return replace(state, incidents=tuple(incidents))


def _on_group_ended(state: RunState, event: GroupEnded) -> Transition:
    if _may_come_again(state, event):
        return _on_gang_lost(state, event)
    state = replace(state, open_groups=state.open_groups - {event.role})
    if state.phase is Phase.STOPPING:
        if event.failure is not None and state.verdict is Verdict.FAILED and not state.cancelled:
            state = replace(state, failures=(*state.failures, event.failure))
        return _ended_if_empty(state)
    if event.failure is not None:
        return _stop(state, Verdict.FAILED, event.failure)
    return state, ()


def _may_come_again(state: RunState, event: GroupEnded) -> bool:
    return (
        event.role in state.gangs & state.open_groups
        and state.phase is not Phase.STOPPING
        and event.failure is not None
        and event.failure.cause is Cause.INFRASTRUCTURE
    )


def _on_gang_lost(state: RunState, event: GroupEnded) -> Transition:
    """Submit a gang again, at the cost of a restart unless a lost host of it was answered."""
    assert event.failure is not None
    role, failure = event.role, event.failure
    if role in state.failing:
        state = _followed_by(state, state.generation, failure)
    else:
        state, reaction, failure = _answer(state, failure, False, event.step, event.at)
        if reaction is Reaction.STOP:
            state = replace(state, open_groups=state.open_groups - {role})
            return _stop(state, Verdict.FAILED, failure)
    begins = state.phase is Phase.TRAINING
    phase = Phase.RECOVERING if begins else state.phase
    members = frozenset(key for key in state.members if key.role != role)
    state = replace(state, phase=phase, members=members, failing=state.failing - {role})
    # Others that were let go because their roles were done are needed too.
    gone = frozenset(key for key in state.expected - members if key.role != role)
    return state, (ResubmitGroup(role), *(_reruns(state, gone) if begins else ()))


def _on_stop_expired(state: RunState) -> Transition:
    if state.phase is not Phase.STOPPING:
        return state, ()
    if not state.cancelled:
        return replace(state, cancelled=True), (CancelGroups(),)
    return replace(state, phase=Phase.ENDED), (EndRun(),)
