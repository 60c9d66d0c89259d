"""Carry out the driver's orders at one role: which life of the training process runs now.

Everything comes together in one loop in one thread: orders, the process's own signs, the driver's
stop, the loss of the registry, a failure of the feed.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tfos import wire
from tfos.config import JobConfig, RoleResources
from tfos.errors import (
    RendezvousConnectionError,
    RendezvousError,
    RendezvousTimeoutError,
    SessionLostError,
)
from tfos.fault.drills.drills import HostDrill
from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.frameworks.contract import TRAIN, load_framework
from tfos.frameworks.tensorflow.keras import keras_variables
from tfos.launcher.application.shipped import is_archive
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.launcher.platform.role_memory import has_room_for_standby
from tfos.launcher.role.membership import (
    HostSession,
    Notice,
    Ordered,
    PeersDone,
    SessionLost,
    Stopped,
)
from tfos.launcher.role.process_life import LifeReport, TrainingLife, WaitingProcess
from tfos.launcher.role.progress import ProgressPublisher
from tfos.launcher.role.watchdog import Watchdog
from tfos.read_plan import FeedPosition
from tfos.registry.contract import Generation, Subscription
from tfos.topology import Life, Role, TaskKey

__all__ = ["Supervision"]

log = logging.getLogger("tfos")

POLL_S = 0.05
RESTART_GRACE_S = 1.0
"""How long a process that is to start again may take to end by itself, ``shutdown`` included."""
SERVERS_WAIT_S = 1.0
"""How much longer than trainers may take to end their servers wait for them."""
STANDBY_AFTER_STEPPING_S = 2.0
STANDBY_AFTER_S = 10.0
"""A new standby starts so long after the first step, or after a life's beginning where no step is
seen: its import takes seconds of CPU that the start of training wants; a short run needs none."""


class Supervision:
    """The lives of one role's training process.

    `run` and `tell_failure` block and belong to one thread; `fail` and `mark` may be called from
    others.

    Parameters
    ----------
    config
        The run's configuration.
    key
        The role.
    session
        Its registration.
    directory
        Where each process gets a directory of its own.
    make_spec
        Says what a life is told: (life, generation, position to continue at or None) -> spec.
    drill
        Faults to cause on purpose.
    variables
        Environment variables of the training process that only its task knows.
    rows
        Says how many rows were fed so far, by dataset name.
    """

    def __init__(
        self,
        config: JobConfig,
        key: TaskKey,
        session: HostSession,
        directory: Path,
        make_spec: Callable[[Life, Generation, FeedPosition | None], TrainingSpec],
        drill: HostDrill,
        variables: Mapping[str, str],
        rows: Callable[[], Mapping[str, int]],
    ) -> None:
        self._config = config
        self._key = key
        self._session = session
        self._directory = directory
        self._make_spec = make_spec
        self._failure: Failure | None = None
        self._failure_told = False
        # How the last life ended, until the driver has been told: its failure, or None for done.
        self._untold: tuple[Life, Failure | None] | None = None
        self._ordered = (0, 0)
        self._ending = False
        # Until when a server that is to end lets the trainers go first; None while nobody is.
        self._last_to_end_at: float | None = None
        self._driver_listens = True
        self._report = LifeReport()
        self._generation = 0
        self._spare = False
        self._drill = drill
        self._variables = variables
        self._rows = rows
        self._standby: WaitingProcess | None = None
        self._unsubscribe: list[Subscription] = []
        self._started = 0
        self._progress = ProgressPublisher(session, key, self._fed)
        self._phases: dict[str, float] = {}

    # -- what other threads call ----------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """End the role because something around its process failed; the first one counts.

        The driver is told at once where it can be: the others wait for this role meanwhile.
        """
        if self._failure is None:
            self._failure = failure
        self._session.notices.put(failure)
        if self._session.connected:
            with suppress(RendezvousError):  # `tell_failure` follows
                self._publish_failure()

    def mark(self, phase: str) -> None:
        """Note that the role enters a phase now."""
        self._phases[phase] = time.time()

    def _fed(self) -> int | None:
        """Return the rows of ``train`` that the role was fed; None while there may be more."""
        return self._rows().get(TRAIN) if "feed_ended" in self._phases else None

    def outcome(self) -> Outcome:
        """Return how the role ended; a life's failure that the driver has heard of is no part."""
        report = self._report
        return Outcome(
            key=self._key,
            failure=self._failure or (None if self._untold is None else self._untold[1]),
            done=report.done,
            result=report.result,
            metrics=report.progress.metrics,
            step=report.progress.step,
            rows=self._rows(),
            phases={**self._phases, **report.phases},
            artifacts=report.artifacts,
            notices=report.notices,
        )

    def tell_failure(self) -> None:
        """Report a failure that could not be reported earlier; call after `run`, if at all.

        Spark carries it as well, but only once every other task of its job has ended. This role
        is registered first where it is not: the driver hears of members alone. Blocks for as long
        as `HostSession.rejoin` does.
        """
        if self._failure is None or self._failure_told or not self._driver_listens:
            return
        try:
            if not self._session.connected:
                self._session.rejoin()
            self._publish_failure()
        except RendezvousError as error:
            log.warning("the failure of %s goes by Spark alone: %s", self._key, error)

    def _publish_failure(self) -> None:
        # Number 0 is read in every generation: this host may not have heard of the latest.
        self._publish_outcome(0)
        self._failure_told = True

    def _publish_outcome(self, generation: int) -> None:
        outcome = wire.to_json(self.outcome())
        self._session.registry.publish_outcome(generation, self._key, outcome)

    # -- the lives ------------------------------------------------------------------------------

    def run(self) -> None:
        """Register, and live every life that the driver orders until the run ends for this role.

        Raises
        ------
        InfrastructureError
            If a process cannot be started.
        RendezvousError
            If no order comes, or the registry stays out of reach.
        """
        # Started before anything is known: it imports TensorFlow while roles register.
        self._standby = self._new_process()
        last = Life(self._key, 0, 0)
        try:
            self._drill.reach("register", self._standby.managed.pid)
            try:
                self._session.join()
            except (RendezvousConnectionError, SessionLostError) as error:
                log.warning("%s: connecting again", error)
                self._session.rejoin()
            while (life := self._next_order(last)) is not None:
                try:
                    generation = self._session.registry.generation(life.generation)
                    if self._session.takes_part(generation):
                        self._live(life, generation)
                    elif self._generation > 0:
                        log.warning("generation %d has another %s", life.generation, self._key)
                        return
                    else:
                        # Frozen before this host took a lost one's place: a later one has it,
                        # if there is one.
                        self._spare = True
                    last = life
                except (RendezvousConnectionError, SessionLostError) as error:
                    # The order still stands; what became of the session is heard first.
                    log.warning("%s waits for the registry: %s", life, error)
        except RendezvousError:
            self._driver_listens = False
            raise
        finally:
            if self._standby is not None:
                self._standby.discard()

    def _next_order(self, last: Life) -> Life | None:
        """Wait for the order that comes after a life; None once there is nothing more to do.

        Who is done waits as long as the others train: the driver's end is heard by itself.
        """
        deadline = time.monotonic() + 2 * self._config.registry.register_timeout_s
        wait_s = 0.0
        while not self._ending:
            notice = self._take_notice(wait_s)
            if notice is not None:
                self._on_notice(notice, None)
                continue
            self._tell_end()
            if self._ordered > (last.generation, last.respawn):
                return Life(self._key, *self._ordered)
            wait_s = POLL_S
            if time.monotonic() > deadline and not (self._report.done or self._spare):
                # The driver's own deadline comes first and names everybody who is missing.
                raise RendezvousTimeoutError(
                    f"{self._key} heard nothing from the driver for "
                    f"{2 * self._config.registry.register_timeout_s:g} s after {last}",
                    missing=(),
                )
        return None

    def _live(self, life: Life, generation: Generation) -> None:
        self._spare = False
        self._generation = life.generation
        self._progress.begin(life, num_roles=len(generation.cluster.endpoints))
        spec = self._make_spec(life, generation, self._report.read if life.respawn > 0 else None)
        current = self._live_with(self._take_standby(), life, spec)
        failure = current.report.failure
        if failure is not None and failure.cause is not Cause.INFRASTRUCTURE and not current.begun:
            # A standby that died before its life had begun, most often of what killed the process
            # whose place it was to take.
            log.warning("the standby of %s ended as it was to begin: starting another", self._key)
            current = self._live_with(self._new_process(), life, spec)
        # Once more, whatever the pace: a checkpoint that the chief takes later counts on it.
        self._progress.publish(current.report, at_once=True)
        if current.report.failure is not None or current.report.done:
            self._untold = (life, current.report.failure)
        elif self._ending and spec.trains and self._session.connected:
            with suppress(RendezvousError):  # servers wait for a bounded time alone
                self._publish_outcome(life.generation)

    def _live_with(self, process: WaitingProcess, life: Life, spec: TrainingSpec) -> TrainingLife:
        config = self._config.supervision
        current = TrainingLife(
            life,
            process,
            spec,
            Watchdog(
                config.heartbeat_timeout_s,
                config.stall_timeout_s,
                config.connect_timeout_s,
                time.monotonic(),
            ),
            self._progress.positions,
            self._drill,
        )
        self._report = current.report
        self._report.read = spec.continue_at
        try:
            if self._watches_peers:
                self._unsubscribe.append(self._session.watch_peers(life.generation))
            current.begin()
            self._attend(current)
        finally:
            current.close()
            while self._unsubscribe:
                self._unsubscribe.pop()()
        return current

    def _attend(self, current: TrainingLife) -> None:
        began = time.monotonic()
        while current.attend(POLL_S):
            while (notice := self._take_notice(0.0)) is not None:
                self._on_notice(notice, current)
            if self._ordered > (current.life.generation, current.life.respawn):
                current.end(RESTART_GRACE_S)
            if self._last_to_end_at is not None and time.monotonic() >= self._last_to_end_at:
                self._stop_server(current)
            self._progress.publish(current.report)
            if self._session.connected:
                current.look(self._session.registry)
            if self._standby is None and self._wants_standby(current, began):
                self._standby = self._new_process()

    def _wants_standby(self, current: TrainingLife, began: float) -> bool:
        supervision = self._config.supervision
        if not supervision.standby or supervision.max_restarts == 0 or self._ending:
            return False
        if not has_room_for_standby(self._resources.memory):
            return False
        since = current.report.stepping_since
        stepped_s = 0.0 if since is None else time.time() - since
        return stepped_s > STANDBY_AFTER_STEPPING_S or time.monotonic() > began + STANDBY_AFTER_S

    # -- processes ------------------------------------------------------------------------------

    def _take_standby(self) -> WaitingProcess:
        process, self._standby = self._standby, None
        if process is not None and process.alive:
            return process
        if process is not None:
            log.warning("the standby of %s had ended: starting another", self._key)
            process.discard()
        return self._new_process()

    @property
    def _resources(self) -> RoleResources:
        resources: RoleResources = getattr(self._config.roles, self._key.role.value)
        return resources

    def _new_process(self) -> WaitingProcess:
        self._started += 1
        environment = {
            **load_framework(self._config.arch).environment(self._key, self._resources),
            **os.environ,
            **self._variables,
            **keras_variables(self._config.keras),
            # The host's own import path, Spark's shipped files included; the application's come
            # first there, and only once all else is imported.
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p and not is_archive(p)),
        }
        directory = self._directory / f"process-{self._started}"
        return WaitingProcess(self._key, self._config.arch, environment, directory)

    # -- notices --------------------------------------------------------------------------------

    def _take_notice(self, timeout_s: float) -> Notice | Failure | None:
        try:
            notice: Notice | Failure = self._session.notices.get(timeout_s > 0, timeout_s or None)
        except queue.Empty:
            return None
        return notice

    def _on_notice(self, notice: Notice | Failure, current: TrainingLife | None) -> None:
        if isinstance(notice, Ordered):
            self._ordered = max(self._ordered, (notice.generation, notice.respawn))
        elif isinstance(notice, PeersDone):
            if current is not None and notice.generation == current.life.generation:
                current.tell_done(notice.keys)
                if self._last_to_end_at is not None and notice.keys.issuperset(current.trainers):
                    self._stop_server(current)
        elif isinstance(notice, SessionLost):
            self._on_session_lost(current)
        else:
            self._on_end(notice, current)

    def _on_end(self, notice: Notice | Failure, current: TrainingLife | None) -> None:
        if not self._ending:
            why = notice.notice.reason if isinstance(notice, Stopped) else type(notice).__name__
            log.debug("%s ends: %s", self._key, why)
        if not self._ending and current is not None:
            self._stop(notice, current)
        self._ending = True
        self._driver_listens &= isinstance(notice, Failure)

    def _stop(self, notice: Notice | Failure, current: TrainingLife) -> None:
        grace_s = self._config.supervision.grace_s
        if not (isinstance(notice, Stopped) and notice.notice.trainers_first):
            current.ask_to_stop(grace_s / 2)
        elif current.spec.trains:
            current.ask_to_stop(grace_s)
        else:
            # What the trainers still have to keep is on the servers.
            self._last_to_end_at = time.monotonic() + grace_s + SERVERS_WAIT_S
            self._unsubscribe.append(self._session.watch_peers(current.life.generation))

    def _stop_server(self, current: TrainingLife) -> None:
        self._last_to_end_at = None
        current.ask_to_stop(self._config.supervision.grace_s / 2)

    def _on_session_lost(self, current: TrainingLife | None) -> None:
        """End the process, which the others no longer count on, and come back."""
        where = self._config.registry.zookeeper or "embedded"
        log.warning("%s lost its ZooKeeper session (%s): registering again", self._key, where)
        if current is not None:
            failure = current.record(
                Cause.INFRASTRUCTURE,
                f"{self._key} lost its ZooKeeper session ({where})",
                hint="ZooKeeper died, or this host could not reach it for "
                f"registry.session_timeout_s = {self._config.registry.session_timeout_s:g} s",
            )
            current.end(RESTART_GRACE_S)
            current.report.failure = failure
        self._session.rejoin()

    # -- telling --------------------------------------------------------------------------------

    def _tell_end(self) -> None:
        """Tell the driver how the last life ended; tried again until the registry takes it."""
        if self._untold is None or not self._session.connected:
            return
        life, failure = self._untold
        try:
            if failure is None:
                self._publish_outcome(life.generation)
            else:
                self._session.registry.publish_failure(life, wire.to_json(failure))
        except (RendezvousConnectionError, SessionLostError) as error:
            log.debug("the end of %s is not told yet: %s", life, error)
            return
        self._untold = None

    @property
    def _watches_peers(self) -> bool:
        workers_train = load_framework(self._config.arch).roles(self._config.roles)
        return self._key.role is Role.CHIEF and any(
            spec.role is Role.WORKER and spec.trains for spec in workers_train
        )
