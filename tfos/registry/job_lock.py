"""Keep one run per job name: a lock in ZooKeeper, held by the driver's own session."""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from tfos.errors import AlreadyRunningError, ConfigError, RendezvousError
from tfos.registry.contract import Connection, Subscription
from tfos.registry.documents import decode, encode
from tfos.registry.node_session import (
    Create,
    Delete,
    Node,
    NodeError,
    NodeMissingError,
    NodeMovedError,
    NodePresentError,
)
from tfos.registry.run_tree import create_under_parents, delete_empty_parents
from tfos.registry.zookeeper import ZooKeeperSession
from tfos.run_holder import describe_holder

__all__ = ["JobLock"]

_LOG = logging.getLogger(__name__)
_GRACE_S: Final = 2.0


class JobLock:
    """The right to run a job of one name, held while in the context. For the driver.

    It is a node with an ephemeral child, ``holder``, which goes when the context is left, and when
    the holder dies, once its session expires. Anyone may read both, and only this object's session
    may change them: ZooKeeper lets those delete a node who may delete children of its parent, which
    for the child is this session alone, and a node with a child cannot be deleted. An empty one,
    which a dead holder leaves, is replaced by the next. Not reentrant.

    Entering blocks for at most `connect_timeout_s`, and `session_timeout_s` + 2 s for a holder,
    which may be dead without its session having expired yet. One made to stay is not waited for.
    Leaving blocks for at most `session_timeout_s` + 5 s, should the server be silent.

    Parameters
    ----------
    hosts
        ``host:port,host:port``: the servers.
    path
        The lock's node, such as ``/tfos/my-job/lock``. Nodes above it are made where missing, and
        the two next above removed at the end where empty.
    holder
        The run, for others to read (`tfos.run_holder.holder_here`).
    session_timeout_s
        Silence after which the session, and the lock with it, is lost.
    connect_timeout_s
        Time to reach a server at all.
    on_lost
        Called once, from a registry thread, with what became of the lock when it is lost while it
        is held: another run may start. It must not block.
    """

    def __init__(
        self,
        hosts: str,
        path: str,
        *,
        holder: Mapping[str, str],
        session_timeout_s: float,
        connect_timeout_s: float,
        on_lost: Callable[[str], None],
    ) -> None:
        if not path.startswith("/") or path.endswith("/") or "//" in path:
            raise ConfigError(f"the job's lock is {path!r}: it must be a path such as /tfos/a/lock")
        self._hosts = hosts
        self._path = path
        self._holder = f"{path}/holder"
        self._data = encode(holder, f"the holder of {path}")
        self._session_timeout_s = session_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._on_lost = on_lost
        self._session: ZooKeeperSession | None = None
        self._subscriptions: list[Subscription] = []
        self._lost = False

    def __enter__(self) -> JobLock:
        """Take the lock.

        Raises
        ------
        AlreadyRunningError
            If another run holds it to the end of the wait, or somebody made it to stay; names it.
        RendezvousConnectionError
            If no server is reached, or answers, in time.
        RendezvousError
            If the session is lost meanwhile (SessionLostError), or the server denies access.
        """
        session = ZooKeeperSession(
            self._hosts,
            secrets.token_hex(16),
            self._session_timeout_s,
            self._connect_timeout_s,
            readable=True,
        )
        try:
            self._take(session)
            self._lost = False
            self._subscriptions = [
                session.watch_connection(self._hear),
                session.watch_data(self._holder).subscribe(self._look),
            ]
        except BaseException:
            session.close()
            raise
        self._session = session
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Release the lock at once. A server that does not answer releases it by itself."""
        session, self._session = self._session, None
        if session is None:
            return
        for unsubscribe in self._subscriptions:
            unsubscribe()
        try:
            # Not another run's, which took it after this session was lost.
            if session.read(self._holder).mine:
                session.commit([Delete(self._holder), Delete(self._path)])
            delete_empty_parents(session, self._path)
        except (NodeError, RendezvousError) as error:
            _LOG.debug(
                "The lock %s goes with its session, for releasing it failed: %r", self._path, error
            )
        finally:
            session.close()

    def _hear(self, connection: Connection) -> None:
        if connection is Connection.LOST:
            self._tell_lost("its session has ended")

    def _look(self, data: bytes | None) -> None:
        if data != self._data:
            self._tell_lost(f"{self._holder} was removed by somebody else")

    def _tell_lost(self, why: str) -> None:
        # Both listeners run in one thread.
        if not self._lost:
            self._lost = True
            self._on_lost(
                f"the job's lock in ZooKeeper was lost, for {why}: another run of it may begin"
            )

    def _take(self, session: ZooKeeperSession) -> None:
        """Create the nodes, waiting for another holder's to go."""
        wait_s = self._session_timeout_s + _GRACE_S
        started = time.monotonic()
        waited = False
        while (held := self._create(session)) is not None:
            holder = _describe(held.data)
            # One that no session owns does not go.
            if not held.session or time.monotonic() >= started + wait_s:
                raise AlreadyRunningError(
                    f"this job is already running ({holder}) and holds {self._path} in ZooKeeper "
                    f"at {self._hosts}: {self._way_out(session, held)}",
                    holder=holder,
                )
            if not waited:
                _LOG.info(
                    "This job's lock %s is held (%s): waiting at most %g s for it to go, in case "
                    "that run has died",
                    self._path,
                    holder,
                    wait_s,
                )
            waited = True
            self._await_change(session, started + wait_s)

    def _way_out(self, session: ZooKeeperSession, held: Node) -> str:
        if held.session:
            return (
                f"its session there is 0x{held.session:x}; wait for that run to end or kill it, or "
                "submit under another --name"
            )
        try:
            owner = session.access(self._path)
        except (NodeError, RendezvousError):
            owner = "its owner"
        return (
            f"no session owns it, so that it does not go by itself, and {owner} may change it: if "
            f"no such run lives, have it removed (zkCli.sh deleteall {self._path}), or submit "
            "under another --name"
        )

    def _await_change(self, session: ZooKeeperSession, deadline: float) -> None:
        """Block until the holder is gone or the session ended, at most until `deadline`."""
        heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Anew each time: a watch ends with the node it follows.
        subscriptions = [
            session.watch_data(self._holder).subscribe(heard.put),
            session.at_end(lambda: heard.put(None)),
        ]
        with suppress(queue.Empty):
            while heard.get(timeout=max(0.0, deadline - time.monotonic())) is not None:
                pass
        for unsubscribe in subscriptions:
            unsubscribe()

    def _create(self, session: ZooKeeperSession) -> Node | None:
        """Try once to create the nodes; return what is there instead, None when they are ours."""
        fresh = [Create(self._path), Create(self._holder, self._data, ephemeral=True)]
        while True:
            try:
                create_under_parents(session, self._path, lambda: session.commit(fresh))
                return None
            except NodePresentError:
                pass
            try:
                node = session.read(self._holder)
                # A commit whose answer was lost finds its own node.
                return None if node.mine else node
            except NodeMissingError:
                # Nobody's: its holder has died, or is just leaving.
                with suppress(NodeMissingError, NodePresentError, NodeMovedError):
                    session.commit([Delete(self._path), *fresh])
                    return None
            # Another run was faster; or something else lies below, which no run has put there.
            with suppress(NodeMissingError):
                if set(session.children(self._path)) - {"holder"}:
                    return Node(b"", 0, False)


def _describe(data: bytes) -> str:
    try:
        return describe_holder(decode(dict, data, "the lock's holder"))
    except RendezvousError:
        return describe_holder({})
