"""Keep a role host registered: join the run, hear what concerns it, come back after a lost session.

What is heard arrives as notices on one queue; the registry's own threads do nothing more.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfos.errors import RendezvousClosedError, RendezvousError
from tfos.registry.contract import (
    Connection,
    Generation,
    Member,
    Registry,
    StopNotice,
    Subscription,
)
from tfos.topology import TaskKey

__all__ = [
    "REJOIN_WITHIN_S",
    "DriverGone",
    "HostSession",
    "Notice",
    "Ordered",
    "PeersDone",
    "Replaced",
    "SessionLost",
    "Stopped",
]

log = logging.getLogger("tfos")

RETRY_EVERY_S = 0.5

REJOIN_WITHIN_S = 120.0
"""How long a role host without a session tries for another one; its driver may be gone."""


@dataclass(frozen=True)
class Ordered:
    """The driver wants this role's process to live in `generation` as its life `respawn`."""

    generation: int
    respawn: int


@dataclass(frozen=True)
class Stopped:
    """The driver ends the run."""

    notice: StopNotice


@dataclass(frozen=True)
class DriverGone:
    """The driver died or lost its session: nobody decides any more."""


@dataclass(frozen=True)
class Replaced:
    """Another host plays this role now, or the run's nodes are gone."""


@dataclass(frozen=True)
class SessionLost:
    """The session with the registry is lost, and this host's membership with it."""


@dataclass(frozen=True)
class PeersDone:
    """The roles that have ended for good in a generation."""

    generation: int
    keys: frozenset[TaskKey]


Notice = Ordered | Stopped | DriverGone | Replaced | SessionLost | PeersDone


class HostSession:
    """A role host's membership. `notices` may be read from one thread; calls come from the same.

    Others may put notices of their own, from any thread: all that happens comes in one order.

    Parameters
    ----------
    connect
        Opens a session with the registry.
    member
        What to register.
    patience_s
        Longest time to come back after a lost session.
    """

    def __init__(
        self, connect: Callable[[], Registry], member: Member, *, patience_s: float
    ) -> None:
        self._connect = connect
        self._member = member
        self._patience_s = patience_s
        self._subscriptions: list[Subscription] = []
        self.notices: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.connected = False
        self.registry = connect()

    def join(self) -> None:
        """Register and begin to listen.

        Raises
        ------
        RendezvousError
            If another host holds the role, or the run has been stopped (RendezvousClosedError).
        """
        registry, key = self.registry, self._member.key
        registry.register(self._member)
        self.connected = True
        self._subscriptions = [
            registry.watch_connection(self._on_connection),
            registry.watch_stop(lambda notice: self.notices.put(Stopped(notice))),
            registry.watch_driver(lambda: self.notices.put(DriverGone())),
            registry.watch_orders(
                key, lambda generation, respawn: self.notices.put(Ordered(generation, respawn))
            ),
        ]

    def takes_part(self, generation: Generation) -> bool:
        """Whether this host, and no other in its place, plays the role in a generation."""
        return generation.cluster.endpoints[self._member.key] == self._member.endpoint

    def watch_peers(self, generation: int) -> Subscription:
        """Tell of the roles that end in a generation, until the returned call."""
        return self.registry.watch_outcomes(
            generation, lambda keys: self.notices.put(PeersDone(generation, keys))
        )

    def rejoin(self) -> None:
        """Open a new session and register again; blocks for at most `patience_s`.

        Raises
        ------
        RendezvousError
            If that fails for so long.
        RendezvousClosedError
            If the run has ended meanwhile.
        """
        deadline = time.monotonic() + self._patience_s
        self.close()
        while True:
            try:
                self.registry = self._connect()
                self.join()
                log.info("%s is registered again", self._member.key)
                return
            except RendezvousClosedError:
                raise
            except RendezvousError as error:
                self.registry.close()
                if time.monotonic() >= deadline:
                    raise
                log.warning("%s cannot register again yet: %s", self._member.key, error)
                time.sleep(RETRY_EVERY_S)

    def expire(self) -> None:
        """Have the session expire, for a drill."""
        self.registry.expire()

    def close(self) -> None:
        """End the session; the membership vanishes at once. Idempotent."""
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions = []
        self.connected = False
        self.registry.close()

    def _on_connection(self, connection: Connection) -> None:
        self.connected = connection is Connection.CONNECTED
        if connection is Connection.LOST:
            self.notices.put(SessionLost())
