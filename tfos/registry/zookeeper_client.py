"""Make the kazoo client of a session: whom it calls, how long it tries, who may read its nodes."""

from __future__ import annotations

import logging
import ssl
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.retry import KazooRetry
from kazoo.security import make_acl, make_digest_acl

from tfos.errors import ConfigError
from tfos.registry.identity import RunIdentity

__all__ = ["make_client"]

_USER: Final = "tfos"
# A session is worth this many attempts at least to connect to servers that do not answer.
_ATTEMPTS: Final = 4

# kazoo writes credentials at DEBUG and a line for every reconnect attempt; tfos tells of the
# connection itself. The level is this logger's own, so a root logger at DEBUG does not reach it.
_LOG = logging.getLogger(__name__)
_LOG.setLevel(logging.ERROR)


def make_client(
    hosts: str,
    session_timeout_s: float,
    *,
    secret: str,
    readable: bool = False,
    identity: RunIdentity | None = None,
    client_id: tuple[int, bytes] | None = None,
) -> Any:
    """Return a client that is not started.

    Parameters
    ----------
    hosts
        ``host:port,host:port``.
    session_timeout_s
        The session time-out; an attempt to connect takes a quarter of it at most.
    secret
        Opens the nodes it creates; no one else may change them.
    readable
        Let anyone read them.
    identity
        Connect by TLS, to a server that has it as well; None for a server that speaks no TLS.
    client_id
        The id and password of a session to take over, instead of a session of its own.

    Raises
    ------
    ConfigError
        If `hosts` is malformed.
    """
    acl = [make_digest_acl(_USER, secret, all=True)]
    if readable:
        acl.append(make_acl("world", "anyone", read=True))
    tls = None if identity is None else identity.client_context()
    try:
        return KazooClient(
            hosts,
            timeout=session_timeout_s,
            client_id=client_id,
            handler=_Handler(session_timeout_s / _ATTEMPTS, tls),
            default_acl=acl,
            auth_data=[("digest", f"{_USER}:{secret}")],
            # kazoo's own back-off grows to an hour; the session does not live as long.
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, backoff=1.5, max_delay=1.0),
            logger=_LOG,
        )
    except ValueError as error:
        raise ConfigError(
            f"the ZooKeeper address is {hosts!r}: expected HOST:PORT[,HOST:PORT...] (--zookeeper)"
        ) from error


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo is untyped
    """kazoo's own, but one silent server does not use up the session, and TLS is ours.

    kazoo waits a whole session time-out for a connection, and for the handshake's answer the
    session time-out divided by the number of servers. A machine that is down never answers the
    first; a connection that ZooKeeper 3.9.5 accepts while it starts is, rarely, never read.

    kazoo's TLS would read the key from a file again for each connection, and trust every authority
    that the host does; and it waits for a socket whose next answer TLS has already decrypted.
    """

    def __init__(self, bound_s: float, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._bound_s = bound_s
        self._tls = tls

    def create_connection(self, *args: Any, timeout: float, **options: Any) -> Any:
        link = super().create_connection(*args, timeout=min(timeout, self._bound_s), **options)
        if self._tls is None:
            return link
        try:
            return self._tls.wrap_socket(link)
        except BaseException:
            link.close()
            raise

    def select(self, reads: Any, writes: Any, errors: Any, timeout: float | None = None) -> Any:
        decrypted = [link for link in reads if isinstance(link, ssl.SSLSocket) and link.pending()]
        if decrypted:
            # Requests of this process, which kazoo sends before it reads on, must not wait either.
            others = [link for link in reads if link not in decrypted]
            ready, writable = super().select(others, writes, errors, 0)
            return decrypted + ready, writable
        # A wait for what the server must send or take now has one socket; the idle connection
        # waits on two, the other for requests of this process.
        if timeout is not None and len(reads) < 2:
            timeout = min(timeout, self._bound_s)
        return super().select(reads, writes, errors, timeout)
