"""Say what a registry does: the small control plane in which roles meet, report and are stopped.

Two backends keep this contract (`memory`, `zookeeper`), and one suite of tests runs on both.
Documents are JSON objects of at most `MAX_DOCUMENT_BYTES`; nothing is ever unpickled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from tfos.errors import RendezvousClosedError, RendezvousError
from tfos.topology import ClusterSpec, Endpoint, Life, TaskKey

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "Connection",
    "Document",
    "Generation",
    "Member",
    "Registry",
    "StopNotice",
    "Subscription",
]

MAX_DOCUMENT_BYTES: Final = 900_000
"""ZooKeeper's own limit (jute.maxbuffer) is 1 MiB a node, its headers included."""

Document = Mapping[str, Any]
"""A JSON object."""

Subscription = Callable[[], None]
"""Call it to end a subscription; it is idempotent and does not block."""


class Connection(str, Enum):
    """State of this process's link to the registry.

    CONNECTED -> SUSPENDED: the server is silent; pause decisions, nothing is lost yet.
    SUSPENDED -> CONNECTED: the session survived, ephemeral nodes included.
    SUSPENDED -> LOST: the session expired, this process's membership is gone. Terminal.
    """

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


@dataclass(frozen=True)
class Member:
    """One registered role host.

    Parameters
    ----------
    key
        The role it plays.
    endpoint
        Where its training process will serve; the role host holds the port.
    host
        Its host's name.
    pid
        The role host's process id.
    attempt
        0 for the first host of the role, higher for every later one that takes its place.
    executor
        The executor's container, where the cluster manager names it (YARN); empty elsewhere.
    logs
        URL of that container's output; empty where there is none.
    task
        Spark's task attempt id, unique in the application: what to kill to have the task run
        again; -1 where it is not known.
    row_order
        Tells one order of the rows fed to the role from another: a position within an epoch means
        the same rows only in the same order. 0 for the order that Spark always gives.
    """

    key: TaskKey
    endpoint: Endpoint
    host: str
    pid: int
    attempt: int = 0
    executor: str = ""
    logs: str = ""
    task: int = -1
    row_order: int = 0

    def check_may_replace(self, holder: Member) -> None:
        """Check that this one may take the key from `holder`, of another session.

        It may from an older attempt of the task, and from itself: its own earlier session. Raises
        RendezvousError otherwise.
        """
        itself = (holder.attempt, holder.host, holder.pid) == (self.attempt, self.host, self.pid)
        if not itself and holder.attempt >= self.attempt:
            raise RendezvousError(
                f"{self.key} (attempt {self.attempt}, {self.host} pid {self.pid}) cannot register: "
                f"attempt {holder.attempt} of it is live on {holder.host}, pid {holder.pid}, "
                f"executor {holder.executor or 'unknown'}"
            )


@dataclass(frozen=True)
class Generation:
    """One incarnation of the training cluster: a number, counted from 1, and a frozen membership.

    Parameters
    ----------
    number
        Counts up through a run's restarts.
    cluster
        Every member's endpoint.
    row_orders
        Of each fed role, `Member.row_order`.
    store
        Where its processes find each other, for architectures that need more than `cluster`.
    """

    number: int
    cluster: ClusterSpec
    row_orders: Mapping[TaskKey, int] = field(default_factory=dict)
    store: Endpoint | None = None


@dataclass(frozen=True)
class StopNotice:
    """Why the driver ends the run: `reason` is for people.

    `outcome` is "done", "failed", "timed_out" or "interrupted".
    """

    outcome: str
    reason: str

    @property
    def trainers_first(self) -> bool:
        """Whether training was well until now: it may keep a checkpoint before its servers end."""
        return self.outcome in ("timed_out", "interrupted")

    def refusal(self, key: TaskKey) -> RendezvousClosedError:
        """Return the error of a role that would register after it."""
        return RendezvousClosedError(
            f"{key} cannot register: the run was stopped ({self.outcome}): {self.reason}",
            reason=self.reason,
        )


class Registry(ABC):
    """A process's view of one run's control plane. Thread-safe.

    Every method that talks to a server blocks for at most the backend's operation timeout and
    raises `RendezvousConnectionError` past it, or `SessionLostError` once the session is lost.
    Listeners are called from one thread of the backend, one at a time; they must not block
    and must not call the registry (put what they hear on a queue).
    """

    # -- role hosts ---------------------------------------------------------------------------

    @abstractmethod
    def register(self, member: Member) -> None:
        """Announce a role host for as long as this session lives.

        Seeing the same key already there from this session is success. A key held by another
        session is taken over from an older attempt of the same task (the older host is fenced), and
        from this very role host: the same attempt, host and pid. A host whose session is lost thus
        opens another and registers again, though the server may still hold the lost one's node.
        Held by another host of the same attempt, or by a newer attempt, it is refused.

        Raises
        ------
        RendezvousError
            If another live host of the same or a newer attempt holds the key; names the owner.
        RendezvousClosedError
            If the run has already been stopped.
        """

    @abstractmethod
    def generation(self, number: int) -> Generation:
        """Return a published generation, also after the run is stopped.

        Raises
        ------
        RendezvousClosedError
            If the run's tree is gone.
        RendezvousError
            If no generation of that number was published.
        """

    @abstractmethod
    def publish_outcome(self, generation: int, key: TaskKey, outcome: Document) -> None:
        """Write how a role ended in a generation; outlives this session. The first one stands."""

    @abstractmethod
    def publish_failure(self, life: Life, failure: Document) -> None:
        """Write how one life of a role's training process failed.

        It outlives this session. The first one of a life stands.
        """

    @abstractmethod
    def publish_progress(self, key: TaskKey, progress: Document) -> None:
        """Write a role's latest progress, replacing the one before; gone with this session."""

    # -- the driver ---------------------------------------------------------------------------

    @abstractmethod
    def attend(self) -> None:
        """Mark this session as the driver's: role hosts that watch hear when it ends. Idempotent.

        Before role hosts start: to them, a driver that has not attended is one that has gone.

        Raises
        ------
        RendezvousError
            If another live session is the driver's.
        """

    @abstractmethod
    def members(self) -> dict[TaskKey, Member]:
        """Return the role hosts registered now."""

    @abstractmethod
    def publish_generation(self, generation: Generation) -> None:
        """Freeze the next generation.

        Raises
        ------
        RendezvousError
            If `generation.number` is not one above the latest published: another driver is at work.
        """

    @abstractmethod
    def order_respawn(self, life: Life) -> None:
        """Tell a role host to start its process as `life`, in place, while the others go on.

        Idempotent; an older order never replaces a newer one. Orders for an older generation than
        the latest are ignored.

        Raises
        ------
        RendezvousError
            If the life's generation was not published.
        """

    @abstractmethod
    def outcomes(self, generation: int) -> dict[TaskKey, dict[str, Any]]:
        """Return the outcomes written so far in a generation."""

    @abstractmethod
    def failures(self) -> dict[Life, dict[str, Any]]:
        """Return every failure written so far in the run."""

    @abstractmethod
    def failure(self, life: Life) -> dict[str, Any]:
        """Return one life's failure.

        Raises
        ------
        RendezvousError
            If none was written.
        """

    @abstractmethod
    def progress(self) -> dict[TaskKey, dict[str, Any]]:
        """Return the latest progress of every live role."""

    @abstractmethod
    def stop(self, notice: StopNotice) -> None:
        """End the run for every role host. The first notice stands."""

    @abstractmethod
    def stop_notice(self) -> StopNotice | None:
        """Return the notice that ended the run, if any."""

    # -- watching -----------------------------------------------------------------------------

    @abstractmethod
    def watch_members(self, listener: Callable[[frozenset[TaskKey]], None]) -> Subscription:
        """Call `listener` with the registered keys now and after every change."""

    @abstractmethod
    def watch_outcomes(
        self, generation: int, listener: Callable[[frozenset[TaskKey]], None]
    ) -> Subscription:
        """Call `listener` with the keys that have an outcome, now and after every change."""

    @abstractmethod
    def watch_failures(self, listener: Callable[[frozenset[Life]], None]) -> Subscription:
        """Call `listener` with the lives that have a failure, now and after every change."""

    @abstractmethod
    def watch_orders(self, key: TaskKey, listener: Callable[[int, int], None]) -> Subscription:
        """Call `listener` with what a role's process should be, now and after every change.

        Its arguments are the latest generation's number and the role's respawn count in it: (0, 0)
        before the first. They never go back; what came in between may be left out.

        Raises
        ------
        RendezvousClosedError
            If the run's tree is gone.
        """

    @abstractmethod
    def watch_driver(self, listener: Callable[[], None]) -> Subscription:
        """Call `listener` once, when the driver's session has ended.

        At once if it already has, or if no driver has attended. It has closed, died or lost its
        session, and none takes its place in this run.
        """

    @abstractmethod
    def watch_stop(self, listener: Callable[[StopNotice], None]) -> Subscription:
        """Call `listener` once, when the run is stopped (at once if it already is)."""

    @abstractmethod
    def watch_connection(self, listener: Callable[[Connection], None]) -> Subscription:
        """Call `listener` with the connection's state now and after every change."""

    @abstractmethod
    def expire(self) -> None:
        """Have the server expire this session, as it does one it no longer hears; for drills."""

    @abstractmethod
    def close(self) -> None:
        """End the session: this process's ephemeral nodes vanish at once. Idempotent."""

    @abstractmethod
    def erase(self) -> None:
        """Remove the run's whole tree. For the driver, once every role host is gone. Idempotent."""
