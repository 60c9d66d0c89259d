"""Carry out the decisions of a run: one loop on the driver that hears events and acts on them."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos.config import JobConfig
from tfos.errors import LaunchError, RendezvousError
from tfos.fault.drills.drills import DriverDrill, drill_of
from tfos.fault.failures.record import Cause
from tfos.fault.failures.restart_policy import Incident, IncidentRecord, RestartBudget
from tfos.launcher.driver.events import (
    CancelGroups,
    Decision,
    EndRun,
    Event,
    Halted,
    OutcomePublished,
    Phase,
    ProcessFailed,
    PublishGeneration,
    RerunTask,
    RespawnProcess,
    ResubmitGroup,
    StopExpired,
    StopRun,
    Verdict,
)
from tfos.launcher.driver.generations import Generations, OpenStore
from tfos.launcher.driver.halts import (
    gave_up,
    interrupted,
    left_early,
    registry_lost,
    timed_out,
)
from tfos.launcher.driver.lost_hosts import LostHosts, SparkLoss, out_of_memory
from tfos.launcher.driver.progress import ProgressLine
from tfos.launcher.driver.recovery_clock import RecoveryClock
from tfos.launcher.driver.registration_wait import RegistrationWait
from tfos.launcher.driver.registry_events import RegistryReader
from tfos.launcher.driver.role_groups import GroupReport, RoleGroup
from tfos.launcher.driver.state import RunState, transition
from tfos.registry.contract import Connection, Registry, StopNotice
from tfos.topology import Role, TaskKey

__all__ = ["Controller"]

log = logging.getLogger(__name__)

TICK_S = 0.5
"""How often deadlines, progress and losses are looked at when nothing happens."""

PEER_WITHIN_S = 5.0
"""How long who lost a peer waits for that peer's own failure, which is the one to answer.

Of a lost executor Spark tells after 0.4 to 0.9 s on a quiet machine (measured on local-cluster).
"""

_READ = ("members", "outcomes", "failures")
"""What is read from the registry in answer to a call of its own."""

CANCEL_WAIT_S = 10.0
"""How long cancelled Spark jobs may take to end before they are left to Spark."""


@dataclass(frozen=True)
class _Heard:
    """Something happened; what exactly is read from the registry in the loop's own thread."""

    what: str
    detail: Any = None


class Controller:
    """Runs on the driver, in the thread that calls `run`; everything else posts to its queue."""

    def __init__(
        self,
        config: JobConfig,
        registry: Registry,
        groups: Sequence[RoleGroup],
        *,
        deadline: float | None,
        explain_missing: Callable[[frozenset[TaskKey]], str],
        open_store: OpenStore = lambda: None,
        server_pid: int | None = None,
    ) -> None:
        self._config = config
        self._registry = registry
        self._groups = {group.spec.role: group for group in groups}
        self._deadline = deadline
        self._events: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
        self._told = RegistryReader(registry, self._groups)
        self._connection = Connection.CONNECTED
        self._generations = Generations(registry, open_store)
        self._lost_hosts = LostHosts(self._groups, self._told)
        self._held: list[ProcessFailed] = []
        self._held_until = 0.0
        self._registration = RegistrationWait(config, explain_missing)
        self._stop_deadline: float | None = None
        self._lost_deadline: float | None = None
        self._progress = ProgressLine()
        self.phases: dict[str, float] = {}
        specs = [group.spec for group in groups]
        supervision = config.supervision
        self.state = RunState(
            expected=frozenset(key for spec in specs for key in spec.keys),
            trainers=frozenset(key for spec in specs if spec.trains for key in spec.keys),
            open_groups=frozenset(self._groups),
            respawning=frozenset(spec.role for spec in specs if spec.respawns),
            gangs=frozenset(spec.role for spec in specs if spec.gang),
            budget=RestartBudget(supervision.max_restarts, supervision.restart_window_s),
        )
        self.recoveries = RecoveryClock()
        self._drill = DriverDrill(drill_of(supervision.inject, None), server_pid)

    # -- what other threads and signal handlers call -------------------------------------------

    def interrupt(self, signal_name: str, why: str) -> None:
        """Ask for an orderly end; safe in a signal handler."""
        self._events.put(_Heard("interrupt", (signal_name, why)))

    def give_up(self, why: str) -> None:
        """End the run as failed by its surroundings; from any thread."""
        self._events.put(_Heard("give_up", why))

    @property
    def incidents(self) -> tuple[IncidentRecord, ...]:
        """What restarts answered so far, with how long each recovery took."""
        return tuple(
            incident.record(self.recoveries.seconds.get(index))
            for index, incident in enumerate(self.state.incidents)
        )

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> RunState:
        """Run to the end and return the last state; never raises for a failure of the run."""
        subscriptions = [
            self._registry.watch_members(lambda keys: self._events.put(_Heard("members"))),
            self._registry.watch_outcomes(0, lambda keys: self._events.put(_Heard("outcomes"))),
            self._registry.watch_failures(
                lambda lives: self._events.put(_Heard("failures", lives))
            ),
            self._registry.watch_connection(lambda c: self._events.put(_Heard("connection", c))),
        ]
        for group in self._groups.values():
            group.start(self._on_end)
        self._drill.reach("register")
        try:
            while self.state.phase is not Phase.ENDED:
                self._turn()
        finally:
            for unsubscribe in subscriptions:
                unsubscribe()
            self._generations.close()
        return self.state

    def _on_end(self, report: GroupReport) -> None:
        self._events.put(_Heard("group", report))

    def _turn(self) -> None:
        # One after the other: what was heard must not be lost because the next call fails.
        for source in (self._hear, self._on_tick):
            try:
                for event in source():
                    self._apply(event)
            except RendezvousError as error:
                # The server fell silent within a call, before the connection's listener said so.
                # What was to be read is read again once it answers.
                log.warning("%s", error)
                self._await_registry()

    def _hear(self) -> Iterable[Event]:
        try:
            heard = self._events.get(timeout=TICK_S)
        except queue.Empty:
            return []
        except KeyboardInterrupt:  # a notebook's stop button
            heard = _Heard("interrupt", ("SIGINT", "interrupted"))
        handlers: Mapping[str, Callable[[Any], Iterable[Event]]] = {
            "members": lambda _: [*self._outcomes(), *self._told.members_changed()],
            "outcomes": lambda _: self._outcomes(),
            # An outcome comes before a failure that followed it, and is of the generation before
            # the one that the failure may begin.
            "failures": lambda new: [*self._outcomes(), *self._hold(self._told.failures(new))],
            "group": self._on_group,
            "connection": self._on_connection,
            "interrupt": self._on_interrupt,
            "give_up": lambda why: [gave_up(why)],
        }
        if self._lost_deadline is not None and heard.what in _READ:
            return []  # read when the registry answers again
        return handlers[heard.what](heard.detail)

    def _outcomes(self) -> list[Event]:
        return self._told.outcomes(self.state.generation)

    def _apply(self, event: Event) -> None:
        before = self.state
        self.state, decisions = transition(before, event)
        for incident in self.state.incidents[len(before.incidents) :]:
            self._announce(incident)
        if self.state.phase is Phase.RECOVERING and before.phase is not Phase.RECOVERING:
            self._registration.begin()
        for decision in decisions:
            log.debug("%s -> %s", type(event).__name__, decision)
            self._carry_out(decision)

    def _announce(self, incident: Incident) -> None:
        supervision = self._config.supervision
        log.warning(
            "%s (restart %d, %d allowed in %g s)",
            incident.record(),
            len(self.state.incidents),
            supervision.max_restarts,
            supervision.restart_window_s,
        )

    # -- events --------------------------------------------------------------------------------

    def _on_group(self, report: GroupReport) -> list[Event]:
        events: list[Event] = [OutcomePublished(outcome) for outcome in report.outcomes]
        failure = report.failure
        if report.killed and failure is not None:
            events.append(Halted(Verdict.INTERRUPTED, failure))
        left = [o.key for o in report.outcomes if o.failure is None and not o.done]
        if failure is None and left and self.state.phase is not Phase.STOPPING:
            failure = left_early(left)
        return [*events, self._told.group_ended(report.role, failure, report.culprit)]

    def _on_connection(self, connection: Connection) -> Iterable[Event]:
        self._connection = connection
        if connection is Connection.CONNECTED:
            return self._read_all()
        if connection is Connection.SUSPENDED:
            log.warning("ZooKeeper does not answer; waiting for it")
            self._await_registry()
            return []
        self._lost_deadline = time.monotonic()
        return [registry_lost(self._config)]

    def _read_all(self) -> Iterator[Event]:
        """Read what may have been missed while the registry did not answer.

        One after the other, each applied before the next is read: a generation must not be
        published with members of which the state has not heard.
        """
        self._lost_deadline = None
        lives = frozenset(self._registry.failures())
        yield from self._outcomes()
        yield from self._hold(self._told.failures(lives))
        yield from self._told.members_changed()

    def _await_registry(self) -> None:
        if self._lost_deadline is None:
            self._lost_deadline = time.monotonic() + self._config.registry.session_timeout_s

    def _hold(self, events: Sequence[Event]) -> list[Event]:
        """Keep back, for a moment, what only follows from a failure that was not heard of yet."""
        follows = [
            event
            for event in events
            if isinstance(event, ProcessFailed) and event.failure.cause is Cause.PEER_LOST
        ]
        if follows and not self._held:
            self._held_until = time.monotonic() + PEER_WITHIN_S
        self._held += follows
        return [event for event in events if event not in follows]

    def _on_lost(self, lost: Iterable[SparkLoss], now: float) -> list[Event]:
        """Tell of hosts whose tasks Spark has lost, then of those that only follow from a loss."""
        events = self._told.hosts_lost({a.task for _, a in lost}, self.state.generation)
        if events or self.state.phase is not Phase.TRAINING or now >= self._held_until:
            events += self._held
            self._held = []
        return events

    def _on_interrupt(self, detail: tuple[str, str]) -> list[Event]:
        signal_name, why = detail
        log.warning("%s: ending the run", why)
        return [interrupted(signal_name, why)]

    def _on_tick(self) -> Iterable[Event]:
        now = time.monotonic()
        phase = self.state.phase
        if phase is Phase.TRAINING and self._lost_deadline is None:
            self._show_progress()
            self._await_recovery()
            self._drill.look(self._registry)
        self._lost_hosts.look()
        lost = self._lost_hosts.lost_attempts()
        if phase is not Phase.STOPPING and (failure := out_of_memory(lost, self._told.last_hosts)):
            return [Halted(Verdict.FAILED, failure)]
        if self._lost_deadline is None and (events := self._on_lost(lost, now)):
            return events
        if self._stop_deadline is not None:
            if now < self._stop_deadline:
                return []
            self._stop_deadline = now + CANCEL_WAIT_S
            return [StopExpired()]
        if self._deadline is not None and now >= self._deadline:
            return [timed_out(self._config, phase)]
        if self._lost_deadline is not None and self._connection is Connection.CONNECTED:
            # A call failed though the connection held: if it answers now, all is well.
            return self._read_all()
        if self._lost_deadline is not None and now >= self._lost_deadline:
            return [registry_lost(self._config)]
        if phase in (Phase.REGISTERING, Phase.RECOVERING):
            return self._await_hosts()
        return []

    def _show_progress(self) -> None:
        try:
            self._progress.show(self._told)
        except RendezvousError as error:
            log.debug("progress cannot be read: %s", error)

    def _await_recovery(self) -> None:
        if not self.recoveries.open:
            return
        try:
            recovered_s = self.recoveries.look(self._told.progress())
        except RendezvousError as error:
            log.debug("progress cannot be read: %s", error)
            return
        if recovered_s is not None:
            log.info("all are stepping again, %.1f s after the failure", recovered_s)

    def _await_hosts(self) -> list[Event]:
        if not self._registration.is_due:
            return []
        if any(group.preparing for group in self._groups.values()):
            # Nobody can register yet; what is waited for has bounds of its own.
            self._registration.begin()
            return []
        halted = self._registration.look(self.state.expected - self._told.members.keys())
        return [] if halted is None else [halted]

    # -- decisions -----------------------------------------------------------------------------

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, PublishGeneration | RespawnProcess):
            try:
                self._restart(decision)
            except RendezvousError as error:
                log.warning("%s", error)
                self._await_registry()
                self._apply(registry_lost(self._config))
            except LaunchError as error:
                self._apply(gave_up(str(error)))
        elif isinstance(decision, RerunTask):
            self._lost_hosts.await_return(decision.key)
        elif isinstance(decision, ResubmitGroup):
            self._registration.begin()
            self._lost_hosts.resubmit(decision.role, self._on_end)
        elif isinstance(decision, StopRun):
            self._stop(decision)
        elif isinstance(decision, CancelGroups):
            for role in sorted(self.state.open_groups):
                log.warning("the %s tasks have not ended: cancelling them", role)
                self._groups[role].cancel()
        else:
            assert isinstance(decision, EndRun)
            self.phases["ended"] = time.time()

    def _restart(self, decision: PublishGeneration | RespawnProcess) -> None:
        if isinstance(decision, RespawnProcess):
            self._registry.order_respawn(decision.life)
            self.recoveries.start(self.state.incidents, [decision.life])
            return
        self._publish(decision.number)
        if decision.number > 1:
            fed = [k for k in self.state.expected if k.role is not Role.PS]
            self.recoveries.start(self.state.incidents, [self.state.life_of(k) for k in fed])

    def _publish(self, number: int) -> None:
        self.phases.setdefault("registered", time.time())
        # Before: once hosts have heard of it, nothing here may fail for a registry that is silent.
        self._registry.watch_outcomes(number, lambda keys: self._events.put(_Heard("outcomes")))
        self._generations.publish(number, self._told.members)
        self._drill.reach("feed")
        if number == 1:
            log.info("all %d roles are registered", len(self._told.members))

    def _stop(self, decision: StopRun) -> None:
        self.phases["stopping"] = time.time()
        self._drill.reach("shutdown")
        grace = self._config.supervision.grace_s
        self._stop_deadline = time.monotonic() + 2 * grace + 5.0
        for group in self._groups.values():
            group.withdraw()
        if self._lost_deadline is not None:
            # Nobody can hear: each role host finds the registry gone by itself, and ends.
            return
        self._registry.stop(StopNotice(decision.verdict.value, decision.reason))
