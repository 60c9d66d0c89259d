"""Say what the registry asks of a session with a server of versioned nodes, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from tfos.registry.contract import Connection, Subscription
from tfos.registry.node_watch import NodeWatch

__all__ = [
    "Create",
    "Delete",
    "Node",
    "NodeError",
    "NodeMissingError",
    "NodeMovedError",
    "NodePresentError",
    "NodeSession",
    "Write",
]


class NodeError(Exception):
    """The server refused a change because of what its tree holds."""


class NodeMissingError(NodeError):
    """The node, or the parent of a node to create, does not exist."""


class NodePresentError(NodeError):
    """The node to create exists."""


class NodeMovedError(NodeError):
    """The node's version is not the expected one, or a node to delete has children."""


class Node(NamedTuple):
    """A node as read: its data, its data version, and whether this session's life is its own.

    `session` is the number of the session whose life it has; 0 for a node that stays.
    """

    data: bytes
    version: int
    mine: bool
    session: int = 0


class Create(NamedTuple):
    """Part of a transaction: create a node."""

    path: str
    data: bytes = b""
    ephemeral: bool = False


class Write(NamedTuple):
    """Part of a transaction: replace a node's data if its version is `version` (-1: any)."""

    path: str
    data: bytes
    version: int = -1


class Delete(NamedTuple):
    """Part of a transaction: delete a childless node."""

    path: str
    version: int = -1


class NodeSession(Protocol):
    """One session. Calls block for at most the session time-out, and are tried again meanwhile.

    A change whose answer was lost may have been made when it is tried again: it then raises
    `NodePresentError`, `NodeMissingError` or `NodeMovedError` because of itself.
    Every call raises `RendezvousConnectionError` without an answer in time, `SessionLostError` once
    the session is lost, and `RendezvousError` when the server denies access.
    """

    def create(self, path: str, data: bytes = b"", *, ephemeral: bool = False) -> None:
        """Create a node."""

    def create_parents(self, path: str) -> None:
        """Create what is missing above `path`, open to every run.

        Raises `NodeMissingError` when one vanishes meanwhile.
        """

    def read(self, path: str) -> Node:
        """Read a node."""

    def read_each(self, paths: Iterable[str]) -> dict[str, Node]:
        """Read nodes, many at a time; missing ones are left out."""

    def children(self, path: str) -> list[str]:
        """Return the names of a node's children, sorted."""

    def write(self, path: str, data: bytes, *, version: int = -1) -> Node:
        """Replace a node's data if its version is `version` (-1: any); return the node."""

    def delete_each(self, paths: Iterable[str]) -> None:
        """Delete childless nodes, many at a time; missing ones are left out."""

    def commit(self, changes: Sequence[Create | Write | Delete]) -> None:
        """Make all changes or none."""

    def watch_children(self, path: str) -> NodeWatch[frozenset[str]]:
        """Return the one watch of this node's children; of no children once it is gone."""

    def watch_data(self, path: str) -> NodeWatch[bytes | None]:
        """Return the one watch of this node's data; None once it is gone."""

    def watch_connection(self, listener: Callable[[Connection], None]) -> Subscription:
        """Call `listener` with the connection's state now and after every change."""

    def at_end(self, call: Callable[[], None]) -> Subscription:
        """Call `call`, which must not block, when the session is lost or closed."""

    def expire(self) -> None:
        """Have the server end the session behind this connection's back."""

    def close(self) -> None:
        """End the session. Idempotent."""
