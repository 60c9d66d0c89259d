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
from tfos.registry.contract import Connection
from tfos.registry.documents import decode, encode
from tfos.registry.node_session import NodeMissingError, NodePresentError
from tfos.registry.run_tree import create_under_parents, delete_empty_parents
from tfos.registry.zookeeper import ZooKeeperSession

__all__ = ["JobLock"]

_LOG = logging.getLogger(__name__)
_GRACE_S: Final = 2.0


class JobLock:
    """The right to run a job of one name, held while in the context. For the driver.

    It is an ephemeral node that anyone may read and only this object's session may change. It goes
    when the context is left, and when the holder dies, once its session expires. Whoever may create
    nodes beside it could remove it, as ZooKeeper has it; tfos does not. Not reentrant.

    Entering blocks for at most `connect_timeout_s`, and `session_timeout_s` + 2 s for a holder,
    which may be dead without its session having expired yet. Leaving blocks for at most
    `session_timeout_s` + 5 s, should the server be silent.

    Parameters
    ----------
    hosts
        ``host:port,host:port``: the servers.
    path
        The lock's node, such as ``/tfos/my-job/lock``. Nodes above it are made where missing, and
        the two next above removed at the end where empty.
    holder
        Who holds it, for others to read: ``run_id``, ``host``, ``pid``, ``user``, ``started`` (when
        the run did, ISO 8601).
    session_timeout_s
        Silence after which the session, and the lock with it, is lost.
    connect_timeout_s
        Time to reach a server at all.
    on_lost
        Called once, from a registry thread, when the session is lost while the lock is held:
        another run may start. It must not block.
    """

    def __init__(
        self,
        hosts: str,
        path: str,
        *,
        holder: Mapping[str, str],
        session_timeout_s: float,
        connect_timeout_s: float,
        on_lost: Callable[[], None],
    ) -> None:
        if not path.startswith("/") or path.endswith("/") or "//" in path:
            raise ConfigError(f"the job's lock is {path!r}: it must be a path such as /tfos/a/lock")
        self._hosts = hosts
        self._path = path
        self._data = encode(holder, f"the holder of {path}")
        self._session_timeout_s = session_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._on_lost = on_lost
        self._session: ZooKeeperSession | None = None

    def __enter__(self) -> JobLock:
        """Take the lock.

        Raises
        ------
        AlreadyRunningError
            If another run holds it to the end of the wait; names it.
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
            session.watch_connection(self._hear)
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
        try:
            # Not another run's, which took it after this session was lost.
            if session.read(self._path).mine:
                session.delete_each([self._path])
            delete_empty_parents(session, self._path)
        except (NodeMissingError, RendezvousError) as error:
            _LOG.debug(
                "The lock %s goes with its session, for releasing it failed: %r", self._path, error
            )
        finally:
            session.close()

    def _hear(self, connection: Connection) -> None:
        if connection is Connection.LOST:
            self._on_lost()

    def _take(self, session: ZooKeeperSession) -> None:
        """Create the node, waiting for another holder's to go."""
        wait_s = self._session_timeout_s + _GRACE_S
        started = time.monotonic()
        waited = False
        while (holder := self._create(session)) is not None:
            if time.monotonic() >= started + wait_s:
                raise AlreadyRunningError(
                    f"this job is already running ({holder}) and holds {self._path} in ZooKeeper "
                    f"at {self._hosts}: wait for that run to end or kill it, or submit under "
                    "another --name",
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

    def _await_change(self, session: ZooKeeperSession, deadline: float) -> None:
        """Block until the node is gone or the session ended, at most until `deadline`."""
        heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Anew each time: a watch ends with the node it follows.
        subscriptions = [
            session.watch_data(self._path).subscribe(heard.put),
            session.at_end(lambda: heard.put(None)),
        ]
        with suppress(queue.Empty):
            while heard.get(timeout=max(0.0, deadline - time.monotonic())) is not None:
                pass
        for unsubscribe in subscriptions:
            unsubscribe()

    def _create(self, session: ZooKeeperSession) -> str | None:
        """Try once to create the node; return who else holds it, None when this session does."""

        def create() -> None:
            session.create(self._path, self._data, ephemeral=True)

        while True:
            try:
                create_under_parents(session, self._path, create)
                return None
            except NodePresentError:
                # Missing by now: its holder has just left, and the place is free again.
                with suppress(NodeMissingError):
                    node = session.read(self._path)
                    # A create whose answer was lost finds its own node.
                    return None if node.mine else _describe(node.data)


def _describe(data: bytes) -> str:
    """Say who holds a lock; anyone could have written it, so that nothing in it is relied on."""
    try:
        holder = decode(data, "the lock's holder")
    except RendezvousError:
        holder = {}
    told = (str(holder.get(name, "")) for name in ("run_id", "host", "pid", "user", "started"))
    run_id, host, pid, user, started = (
        text[:100] if text and text.isprintable() else "unknown" for text in told
    )
    return f"run {run_id}, on {host}, pid {pid}, of user {user}, since {started}"
