"""Reserve the port that a role's training process will serve on."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tfos.errors import PortUnavailableError
from tfos.topology import Endpoint, TaskKey

__all__ = ["address_towards", "describe_unreached", "reserve_port", "unreached"]

_MOST_NAMED = 5


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


def unreached(peers: Mapping[TaskKey, Endpoint], within_s: float) -> dict[TaskKey, str]:
    """Return which peers take no connection from this host, and why not; tries all at once.

    Blocks for about `within_s` at most, a name server's silence aside.
    """

    def attempt(peer: Endpoint) -> str:
        try:
            with socket.create_connection((peer.host, peer.port), timeout=within_s):
                return ""
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return (error.strerror or str(error)).lower()

    with ThreadPoolExecutor(max_workers=max(len(peers), 1)) as pool:
        answers = dict(zip(peers, pool.map(attempt, peers.values()), strict=True))
    return {key: why for key, why in answers.items() if why}


def describe_unreached(peers: Mapping[TaskKey, Endpoint], failed: Mapping[TaskKey, str]) -> str:
    """Return how a message goes on that says that a role did not connect to its `peers`."""
    if not failed:
        return "; this host reaches the port of each: something else keeps them from answering"
    named = [f"{key} at {peers[key]} ({failed[key]})" for key in list(failed)[:_MOST_NAMED]]
    more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
    return f": {', '.join(named)}{more} cannot be reached from this host"
