"""Reserve the port that a role's training process will serve on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tfos.errors import PortUnavailableError
from tfos.topology import Endpoint

__all__ = ["address_towards", "reserve_port"]


def address_towards(peer: Endpoint) -> str:
    """Return this host's address on the interface that leads to `peer`.

    No packet is sent: connecting a datagram socket only looks up the route.

    Raises
    ------
    PortUnavailableError
        If there is no route.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            peer.host, peer.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise PortUnavailableError(
            f"this host has no route to ZooKeeper at {peer}: {error}; check --zookeeper"
        ) from error


@contextmanager
def reserve_port(host: str) -> Iterator[Endpoint]:
    """Hold a free TCP port on `host` until the block ends.

    The socket is bound but never listens; with SO_REUSEPORT the training process, of the same user,
    binds beside it, so no other program can take the port between a death and a restart.

    Raises
    ------
    PortUnavailableError
        If no port can be bound.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, 0))
        except OSError as error:
            raise PortUnavailableError(f"no port could be reserved on {host}: {error}") from error
        yield Endpoint(host, held.getsockname()[1])
