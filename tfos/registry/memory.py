"""Keep the registry contract inside one process: for unit tests, and for seeing what it means."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tfos.errors import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    SessionLostError,
)
from tfos.registry.contract import (
    Connection,
    Document,
    Generation,
    Member,
    Registry,
    StopNotice,
    Subscription,
)
from tfos.registry.delivery import Delivery
from tfos.registry.documents import decode, encode
from tfos.topology import Life, TaskKey

__all__ = ["InMemoryRegistry", "InMemoryRun"]


@dataclass
class _State:
    members: dict[TaskKey, tuple[InMemoryRegistry, Member]] = field(default_factory=dict)
    generations: list[bytes] = field(default_factory=list)
    outcomes: dict[int, dict[TaskKey, bytes]] = field(default_factory=dict)
    failures: dict[Life, bytes] = field(default_factory=dict)
    respawns: dict[TaskKey, tuple[int, int]] = field(default_factory=dict)
    driver: InMemoryRegistry | None = None
    progress: dict[TaskKey, tuple[InMemoryRegistry, bytes]] = field(default_factory=dict)
    stop: StopNotice | None = None
    erased: bool = False


class InMemoryRun:
    """One run's control plane, shared by the sessions `connect` opens. Thread-safe.

    `suspend`, `resume` and `expire` do to a session what a network or a server can do to it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._state = _State()
        self._sessions: list[InMemoryRegistry] = []

    def connect(self) -> InMemoryRegistry:
        """Open a session."""
        session = InMemoryRegistry(self)
        with self._lock:
            if self._state.erased:
                self._state = _State()
            self._sessions.append(session)
        return session

    def suspend(self, session: InMemoryRegistry) -> None:
        """Cut a session off: its calls raise `RendezvousConnectionError` until it resumes."""
        self._transition(session, Connection.SUSPENDED)

    def resume(self, session: InMemoryRegistry) -> None:
        """Bring a suspended session back."""
        self._transition(session, Connection.CONNECTED)

    def expire(self, session: InMemoryRegistry) -> None:
        """Expire a session: its ephemeral nodes vanish and its calls raise `SessionLostError`."""
        self._transition(session, Connection.LOST)

    def _transition(self, session: InMemoryRegistry, connection: Connection) -> None:
        with self._lock:
            if session._connection is not Connection.LOST:
                session._connection = connection
                session._tell("connection")
                if connection is Connection.LOST:
                    self._drop(session)

    def _drop(self, session: InMemoryRegistry) -> None:
        state = self._state
        gone = [key for key, (owner, _) in state.members.items() if owner is session]
        for key in gone:
            del state.members[key]
        for key in [key for key, (owner, _) in state.progress.items() if owner is session]:
            del state.progress[key]
        if gone:
            self._tell("members")
        if state.driver is session:
            state.driver = None
            self._tell("driver")

    def _tell(self, topic: object) -> None:
        for session in self._sessions:
            if session._connection is not Connection.LOST:
                session._tell(topic)

    def _check_present(self) -> None:
        if self._state.erased:
            raise RendezvousClosedError("the run's tree was removed: it has ended", reason="ended")


_Look = Callable[[_State], tuple[Any, ...] | None]
"""Looks at a run for a listener: returns its arguments, or None for no news."""


class _Listening(NamedTuple):
    """A listener, to be told what `look` sees at each change of `topics`, or but once."""

    topics: tuple[object, ...]
    look: _Look
    listener: Callable[..., None]
    once: bool


class InMemoryRegistry(Registry):
    """A session of an `InMemoryRun`; made by its `connect`. Blocks in `close` only: 2 s at most."""

    def __init__(self, run: InMemoryRun) -> None:
        self._run = run
        self._connection = Connection.CONNECTED
        self._closed = False
        self._listeners: dict[object, _Listening] = {}
        self._delivery = Delivery("tfos-registry-memory")

    def register(self, member: Member) -> None:
        """See `Registry.register`."""
        with self._use(present=True) as state:
            if state.stop is not None:
                raise state.stop.refusal(member.key)
            owner, holder = state.members.get(member.key, (self, member))
            if owner is not self:
                member.check_may_replace(holder)
            what = f"the membership of {member.key}"
            state.members[member.key] = (self, decode(Member, encode(member, what), what))
            self._run._tell("members")

    def generation(self, number: int) -> Generation:
        """See `Registry.generation`."""
        with self._use(present=True) as state:
            if not 0 < number <= len(state.generations):
                raise RendezvousError(
                    f"generation {number} was not published: the latest is {len(state.generations)}"
                )
            data = state.generations[number - 1]
        return decode(Generation, data, f"generation {number}")

    def publish_outcome(self, generation: int, key: TaskKey, outcome: Document) -> None:
        """See `Registry.publish_outcome`."""
        data = encode(outcome, f"the outcome of {key} in generation {generation}")
        with self._use(present=True) as state:
            written = state.outcomes.setdefault(generation, {})
            if key not in written:
                written[key] = data
                self._run._tell(("outcomes", generation))

    def publish_failure(self, life: Life, failure: Document) -> None:
        """See `Registry.publish_failure`."""
        data = encode(failure, f"the failure of {life}")
        with self._use(present=True) as state:
            if life not in state.failures:
                state.failures[life] = data
                self._run._tell("failures")

    def publish_progress(self, key: TaskKey, progress: Document) -> None:
        """See `Registry.publish_progress`."""
        data = encode(progress, f"the progress of {key}")
        with self._use(present=True) as state:
            owner, _ = state.members.get(key, (self, None))
            if owner is not self:
                raise RendezvousError(
                    f"the progress of {key} is refused: another host now plays it"
                )
            state.progress[key] = (self, data)

    def attend(self) -> None:
        """See `Registry.attend`."""
        with self._use(present=True) as state:
            if state.driver not in (None, self):
                raise RendezvousError("the run already has a driver: another session's")
            state.driver = self

    def members(self) -> dict[TaskKey, Member]:
        """See `Registry.members`."""
        with self._use() as state:
            return {key: member for key, (_, member) in state.members.items()}

    def publish_generation(self, generation: Generation) -> None:
        """See `Registry.publish_generation`."""
        data = encode(generation, f"generation {generation.number}")
        with self._use(present=True) as state:
            if generation.number != len(state.generations) + 1:
                raise RendezvousError(
                    f"generation {generation.number} cannot be published: the latest is "
                    f"{len(state.generations)}; another driver may be at work on this run"
                )
            state.generations.append(data)
            self._run._tell("generations")

    def order_respawn(self, life: Life) -> None:
        """See `Registry.order_respawn`."""
        with self._use(present=True) as state:
            latest = len(state.generations)
            if not 0 < life.generation <= latest:
                raise RendezvousError(
                    f"{life} cannot be ordered: the latest generation is {latest}"
                )
            order = (life.generation, life.respawn)
            if order > state.respawns.get(life.key, (0, 0)):
                state.respawns[life.key] = order
                if life.generation == latest:
                    self._run._tell(("respawns", life.key))

    def outcomes(self, generation: int) -> dict[TaskKey, dict[str, Any]]:
        """See `Registry.outcomes`."""
        with self._use() as state:
            written = state.outcomes.get(generation, {})
            return {
                key: decode(dict, data, f"the outcome of {key}") for key, data in written.items()
            }

    def failures(self) -> dict[Life, dict[str, Any]]:
        """See `Registry.failures`."""
        with self._use() as state:
            written = state.failures.items()
            return {life: decode(dict, data, f"the failure of {life}") for life, data in written}

    def failure(self, life: Life) -> dict[str, Any]:
        """See `Registry.failure`."""
        failures = self.failures()
        if life not in failures:
            raise RendezvousError(f"{life} has no failure written")
        return failures[life]

    def progress(self) -> dict[TaskKey, dict[str, Any]]:
        """See `Registry.progress`."""
        with self._use() as state:
            written = state.progress.items()
            return {key: decode(dict, data, f"the progress of {key}") for key, (_, data) in written}

    def stop(self, notice: StopNotice) -> None:
        """See `Registry.stop`."""
        with self._use(present=True) as state:
            if state.stop is None:
                state.stop = notice
                self._run._tell("stop")

    def stop_notice(self) -> StopNotice | None:
        """See `Registry.stop_notice`."""
        with self._use() as state:
            return state.stop

    def watch_members(self, listener: Callable[[frozenset[TaskKey]], None]) -> Subscription:
        """See `Registry.watch_members`."""
        return self._subscribe(listener, "members", look=lambda run: (frozenset(run.members),))

    def watch_outcomes(
        self, generation: int, listener: Callable[[frozenset[TaskKey]], None]
    ) -> Subscription:
        """See `Registry.watch_outcomes`."""

        def look(run: _State) -> tuple[frozenset[TaskKey]]:
            return (frozenset(run.outcomes.get(generation, ())),)

        return self._subscribe(listener, ("outcomes", generation), look=look)

    def watch_failures(self, listener: Callable[[frozenset[Life]], None]) -> Subscription:
        """See `Registry.watch_failures`."""
        return self._subscribe(listener, "failures", look=lambda run: (frozenset(run.failures),))

    def watch_orders(self, key: TaskKey, listener: Callable[[int, int], None]) -> Subscription:
        """See `Registry.watch_orders`."""

        def look(run: _State) -> tuple[int, int]:
            latest = len(run.generations)
            generation, respawn = run.respawns.get(key, (0, 0))
            return latest, respawn if generation == latest else 0

        with self._use(present=True):
            return self._subscribe(listener, "generations", ("respawns", key), look=look)

    def watch_driver(self, listener: Callable[[], None]) -> Subscription:
        """See `Registry.watch_driver`."""
        return self._subscribe(
            listener, "driver", look=lambda run: None if run.driver else (), once=True
        )

    def watch_stop(self, listener: Callable[[StopNotice], None]) -> Subscription:
        """See `Registry.watch_stop`."""
        return self._subscribe(
            listener, "stop", look=lambda run: (run.stop,) if run.stop else None, once=True
        )

    def watch_connection(self, listener: Callable[[Connection], None]) -> Subscription:
        """See `Registry.watch_connection`."""
        return self._subscribe(listener, "connection", look=lambda _: (self._connection,))

    def expire(self) -> None:
        """See `Registry.expire`."""
        self._run.expire(self)

    def close(self) -> None:
        """See `Registry.close`."""
        with self._run._lock:
            if not self._closed:
                self._closed = True
                self._run._sessions.remove(self)
                self._run._drop(self)
        self._delivery.close()

    def erase(self) -> None:
        """See `Registry.erase`."""
        with self._use():
            self._run._state = _State(erased=True)
            self._run._tell("members")
            self._run._tell("driver")

    @contextmanager
    def _use(self, present: bool = False) -> Iterator[_State]:
        """Hold the run's lock around one call of a session that must be usable."""
        with self._run._lock:
            self._check_usable()
            if present:
                self._run._check_present()
            yield self._run._state

    def _check_usable(self) -> None:
        if self._closed:
            raise RendezvousConnectionError("this registry is closed")
        if self._connection is Connection.LOST:
            raise SessionLostError(
                "the registry session expired: this process's membership is gone"
            )
        if self._connection is Connection.SUSPENDED:
            raise RendezvousConnectionError("the registry does not answer")

    def _subscribe(
        self, listener: Callable[..., None], *topics: object, look: _Look, once: bool = False
    ) -> Subscription:
        token = object()
        with self._run._lock:
            if "connection" not in topics:
                self._check_usable()
            self._listeners[token] = _Listening(topics, look, listener, once)
            self._tell(topics[0], only=token)

        def unsubscribe() -> None:
            with self._run._lock:
                self._listeners.pop(token, None)

        return unsubscribe

    def _tell(self, topic: object, only: object = None) -> None:
        """Post what a topic's listeners asked to see. The run's lock is held."""
        for token, asked in self._listeners.items():
            if topic in asked.topics and only in (None, token):
                seen = asked.look(self._run._state)
                if seen is not None:
                    self._delivery.post(self._deliver, token, seen)

    def _deliver(self, token: object, seen: tuple[Any, ...]) -> None:
        with self._run._lock:
            asked = self._listeners.get(token)
            if asked is not None and asked.once:
                del self._listeners[token]
        if asked is not None:
            asked.listener(*seen)
