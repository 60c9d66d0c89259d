"""Hold a session with ZooKeeper that always answers in time."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from kazoo.exceptions import (
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.security import Permissions, make_acl

from tfos.errors import ConfigError, RendezvousConnectionError, RendezvousError
from tfos.registry.contract import Connection, Subscription
from tfos.registry.delivery import Delivery
from tfos.registry.identity import RunIdentity
from tfos.registry.node_session import (
    Create,
    Delete,
    Node,
    NodeMissingError,
    NodeMovedError,
    NodePresentError,
    Write,
)
from tfos.registry.node_watch import NodeWatch, UnreadError
from tfos.registry.session_state import SessionState
from tfos.registry.tree import TreeRegistry
from tfos.registry.zookeeper_client import make_client

__all__ = ["ZooKeeperRegistry", "ZooKeeperSession"]

_LOG = logging.getLogger(__name__)
_CLOSE_BOUND_S: Final = 3.0
_EXPIRED_WITHIN_S: Final = 2.0

_REFUSALS: Final = {
    NoNodeError: NodeMissingError,
    NodeExistsError: NodePresentError,
    BadVersionError: NodeMovedError,
    NotEmptyError: NodeMovedError,
}


class ZooKeeperRegistry(TreeRegistry):
    """The registry of one run, in ZooKeeper. Thread-safe; runs on the driver and in role hosts.

    Blocks until connected, at most `connect_timeout_s`. Every later call blocks for at most
    `session_timeout_s`, and one that loses its connection meanwhile is tried again.

    Parameters
    ----------
    hosts
        ``host:port,host:port``: the servers.
    root
        The run's own node, such as ``/tfos/my-job/run-17``. Nodes above it are open to all runs;
        it and all below carry an ACL that only `secret` opens.
    secret
        The run's secret.
    session_timeout_s
        Silence after which the session is lost: the server's verdict, or this process's own when
        it has been cut off for so long. Servers bound it, to 2 and 20 of their ticks by default.
    connect_timeout_s
        Time to reach a server at all.
    identity
        What the run's own server asks of its clients; None for a server that takes everyone.
    create
        Create the run's tree where it is missing. With False, a missing tree means that the run has
        ended, and calls raise `RendezvousClosedError`: for role hosts, which may come late.

    Raises
    ------
    RendezvousConnectionError
        If no server is reached in time.
    RendezvousError
        If the secret does not open the run's tree.
    ConfigError
        If `hosts` or `root` is malformed.
    """

    def __init__(
        self,
        hosts: str,
        root: str,
        secret: str,
        *,
        session_timeout_s: float,
        connect_timeout_s: float,
        identity: RunIdentity | None = None,
        create: bool = True,
    ) -> None:
        if not root.startswith("/") or root.endswith("/") or "//" in root:
            raise ConfigError(f"the registry's root is {root!r}: it must be a path such as /a/b")
        session = ZooKeeperSession(
            hosts, secret, session_timeout_s, connect_timeout_s, identity=identity
        )
        try:
            super().__init__(session, root, create=create)
        except BaseException:
            session.close()
            raise


class ZooKeeperSession:
    """One session: see `NodeSession` for its calls and `Connection` for its states.

    The nodes it creates are open to `secret` alone, or with `readable` to be read by anyone.
    """

    def __init__(
        self,
        hosts: str,
        secret: str,
        session_timeout_s: float,
        connect_timeout_s: float,
        *,
        readable: bool = False,
        identity: RunIdentity | None = None,
    ) -> None:
        self._timeout_s = session_timeout_s
        self._session_id = 0
        self._lock = threading.Lock()
        self._watches: dict[tuple[str, str], NodeWatch[Any]] = {}
        self._ending: threading.Thread | None = None
        self._server = f"ZooKeeper at {hosts}"
        self._delivery = Delivery("tfos-registry-listeners")
        self._state = SessionState(self._server, session_timeout_s, self._delivery)
        self._state.at_end(self._end)
        self._make_client = functools.partial(
            make_client, hosts, session_timeout_s, secret=secret, identity=identity
        )
        self._client = self._make_client(readable=readable)
        self._client.add_listener(self._on_kazoo_state)
        self._client.start_async()
        if not self._state.await_first(connect_timeout_s):
            self._state.close()
            raise RendezvousConnectionError(
                f"{self._server} was not reached within {connect_timeout_s:g} s: check that it "
                "runs there and that this host may connect (--zookeeper), or raise "
                "registry.connect_timeout_s"
            )

    # -- calls --------------------------------------------------------------------------------

    def create(self, path: str, data: bytes = b"", *, ephemeral: bool = False) -> None:
        """See `NodeSession.create`."""
        submit = functools.partial(self._client.create_async, path, data, ephemeral=ephemeral)
        self._call(submit, f"creating {path}")

    def create_parents(self, path: str) -> None:
        """See `NodeSession.create_parents`."""
        # Runs of other secrets create and erase their trees here. Deleting needs the right on the
        # parent; a live run's root is safe all the same, for it is never without children.
        acl = [make_acl("world", "anyone", read=True, create=True, delete=True)]
        parts = path.strip("/").split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/" + "/".join(parts[:depth])
            seen = functools.partial(self._client.exists_async, parent)
            if self._call(seen, f"looking for {parent}") is None:
                try:
                    submit = functools.partial(self._client.create_async, parent, acl=acl)
                    self._call(submit, f"creating {parent}")
                except NodePresentError:
                    continue

    def read(self, path: str) -> Node:
        """See `NodeSession.read`."""
        submit = functools.partial(self._client.get_async, path)
        return self._node(self._call(submit, f"reading {path}"))

    def access(self, path: str) -> str:
        """Describe who may change a node: ZooKeeper's names of them, without their secrets."""
        submit = functools.partial(self._client.get_acls_async, path)
        acls, _ = self._call(submit, f"reading the ACL of {path}")
        names = {
            f"{acl.id.scheme}:{acl.id.id.partition(':')[0]}"
            for acl in acls
            if acl.perms & (Permissions.WRITE | Permissions.DELETE | Permissions.ADMIN)
        }
        return " or ".join(sorted(names)) or "nobody"

    def read_each(self, paths: Iterable[str]) -> dict[str, Node]:
        """See `NodeSession.read_each`."""
        found = self._call_each(self._client.get_async, paths, "reading")
        return {path: self._node(value) for path, value in found.items()}

    def children(self, path: str) -> list[str]:
        """See `NodeSession.children`."""
        submit = functools.partial(self._client.get_children_async, path)
        return sorted(self._call(submit, f"listing {path}"))

    def write(self, path: str, data: bytes, *, version: int = -1) -> Node:
        """See `NodeSession.write`."""
        submit = functools.partial(self._client.set_async, path, data, version=version)
        return self._node((data, self._call(submit, f"writing {path}")))

    def delete_each(self, paths: Iterable[str]) -> None:
        """See `NodeSession.delete_each`."""
        self._call_each(self._client.delete_async, paths, "deleting")

    def commit(self, changes: Sequence[Create | Write | Delete]) -> None:
        """See `NodeSession.commit`."""

        def submit() -> Any:
            transaction = self._client.transaction()
            for change in changes:
                if isinstance(change, Create):
                    transaction.create(change.path, change.data, ephemeral=change.ephemeral)
                elif isinstance(change, Write):
                    transaction.set_data(change.path, change.data, change.version)
                else:
                    transaction.delete(change.path, change.version)
            return transaction.commit_async()

        doing = f"changing {changes[0].path}"
        results = self._call(submit, doing)
        errors = [result for result in results if isinstance(result, Exception)]
        # Those after the first failure say only that they were not tried, those before it that
        # they were rolled back; the one between is the cause.
        for error in errors:
            if type(error) in _REFUSALS:
                raise _REFUSALS[type(error)](f"{doing}: {error!r}") from error
        if errors:
            told = [error for error in errors if not isinstance(error, RolledBackError)] or errors
            raise self._denied(doing, told[0]) from told[0]

    # -- watching -----------------------------------------------------------------------------

    def watch_children(self, path: str) -> NodeWatch[frozenset[str]]:
        """See `NodeSession.watch_children`."""
        read = functools.partial(self._client.get_children_async, path)
        return self._watch(("children", path), read, _children_of)

    def watch_data(self, path: str) -> NodeWatch[bytes | None]:
        """See `NodeSession.watch_data`."""
        read = functools.partial(self._client.get_async, path)
        return self._watch(("data", path), read, _data_of)

    def _watch(
        self, key: tuple[str, str], read: Callable[..., Any], decode: Callable[[Any], Any]
    ) -> NodeWatch[Any]:
        self._state.check_usable(f"watching {key[1]}")
        with self._lock:
            if key not in self._watches:
                self._watches[key] = NodeWatch(read, decode, self._delivery)
            return self._watches[key]

    # -- the connection -----------------------------------------------------------------------

    def watch_connection(self, listener: Callable[[Connection], None]) -> Subscription:
        """See `NodeSession.watch_connection`."""
        return self._state.watch(listener)

    def at_end(self, call: Callable[[], None]) -> Subscription:
        """See `NodeSession.at_end`."""
        return self._state.at_end(call)

    def expire(self) -> None:
        """See `NodeSession.expire`. Blocks for at most twice the session time-out."""
        deadline = time.monotonic() + self._timeout_s
        # Rarely, the first connection takes the session back before the second has closed it.
        while not self._close_by_another_connection():
            if time.monotonic() > deadline:
                raise self._state.silent("expiring the session")

    def _close_by_another_connection(self) -> bool:
        """Take this session over by another connection, close it, and return whether it is lost."""
        twin = self._make_client(client_id=self._client.client_id)
        try:
            twin.start(self._timeout_s)
        except KazooTimeoutError as error:
            raise self._state.silent("expiring the session") from error
        finally:
            twin.stop()
            twin.close()
        return self._state.await_lost(_EXPIRED_WITHIN_S)

    def close(self) -> None:
        """See `NodeSession.close`. Blocks for at most 5 s, should the server be silent."""
        self._state.close()
        if self._ending is not None:
            self._ending.join(_CLOSE_BOUND_S)
        self._delivery.close()

    def _on_kazoo_state(self, state: KazooState) -> None:
        """Follow kazoo's connection; runs in its connection thread, which must not block."""
        if state == KazooState.SUSPENDED:
            self._state.enter(Connection.SUSPENDED)
        elif state == KazooState.LOST:
            self._state.enter(Connection.LOST, "the server expired it")
        else:
            session_id = self._client.client_id[0]
            # After an expiry kazoo opens a new session, which is none of this one's.
            self._session_id = self._session_id or session_id
            if self._state.enter(Connection.CONNECTED):
                with self._lock:
                    watches = list(self._watches.values())
                for watch in watches:
                    watch.refresh()

    def _end(self) -> None:
        """Stop kazoo, which may take its time over a silent server, from a thread of its own."""
        with self._lock:
            if self._ending is None:
                self._ending = threading.Thread(
                    target=self._stop_client, name="tfos-registry-close", daemon=True
                )
                self._ending.start()

    def _stop_client(self) -> None:
        try:
            self._client.stop()
            self._client.close()
        except (KazooException, OSError) as error:
            _LOG.debug("The client of %s did not stop cleanly: %r", self._server, error)

    # -- asking -------------------------------------------------------------------------------

    def _call(self, submit: Callable[[], Any], doing: str, *, submitted: Any = None) -> Any:
        """Submit a request and return its answer, again after a dropped connection, in time."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            self._state.await_connected(doing, deadline)
            try:
                pending, submitted = submitted or submit(), None
                return pending.get(timeout=max(0.0, deadline - time.monotonic()))
            except ConnectionLoss as error:
                _LOG.debug("%s: trying again after %r", doing, error)
            except KazooTimeoutError as error:
                raise self._state.silent(doing) from error
            except (ConnectionClosedError, SessionExpiredError) as error:
                self._state.check_usable(doing)
                raise self._state.silent(doing) from error
            except tuple(_REFUSALS) as error:
                raise _REFUSALS[type(error)](f"{doing}: {error!r}") from error
            except KazooException as error:
                raise self._denied(doing, error) from error

    def _call_each(
        self, method: Callable[[str], Any], paths: Iterable[str], verb: str
    ) -> dict[str, Any]:
        self._state.check_usable(verb)
        pending = [(path, method(path)) for path in paths]
        found = {}
        for path, submitted in pending:
            submit = functools.partial(method, path)
            try:
                found[path] = self._call(submit, f"{verb} {path}", submitted=submitted)
            except NodeMissingError:
                continue
        return found

    def _node(self, value: tuple[bytes, Any]) -> Node:
        data, stat = value
        owner = stat.ephemeralOwner
        return Node(data, stat.version, owner == self._session_id, owner)

    def _denied(self, doing: str, error: Exception) -> RendezvousError:
        if isinstance(error, NoAuthError):
            return RendezvousError(
                f"{doing}: {self._server} denies access; the node belongs to a run of "
                "another secret, or the path of --zookeeper is not open for creating nodes"
            )
        return RendezvousError(f"{doing}: {self._server} refused it: {error!r}")


def _children_of(result: Any) -> frozenset[str]:
    answer = _answer_of(result)
    return frozenset() if answer is None else frozenset(answer)


def _data_of(result: Any) -> bytes | None:
    answer = _answer_of(result)
    return None if answer is None else bytes(answer[0])


def _answer_of(result: Any) -> Any:
    """Return a finished read's answer, None for a missing node."""
    try:
        return result.get_nowait()
    except NoNodeError:
        return None
    except (ConnectionLoss, SessionExpiredError) as error:
        raise UnreadError from error
