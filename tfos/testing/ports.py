"""Free TCP ports for servers that must be told their ports before they start."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

from tfos.errors import LaunchError

__all__ = ["free_ports"]

_LOWEST: Final = 10_000
_RANGE_FILE: Final = "/proc/sys/net/ipv4/ip_local_port_range"
_LINUX_DEFAULT: Final = 32_768


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return that many different ports on which nothing listens now.

    They lie below the range from which the system gives ports to outgoing connections and to
    servers that ask for any: one drawn from within that range is often taken by somebody's
    connection before its server has bound it.

    Parameters
    ----------
    count
        How many.
    host
        Address of this machine on which they are free.

    Raises
    ------
    LaunchError
        If there are not that many.
    """
    candidates = list(range(_LOWEST, max(_first_ephemeral(), _LOWEST + 1_000)))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        with suppress(OSError), socket.create_server((host, port)):
            found.append(port)
        if len(found) == count:
            return found
    raise LaunchError(f"no {count} ports of {host} from {_LOWEST} on are free")


def _first_ephemeral() -> int:
    with suppress(OSError, ValueError, IndexError), open(_RANGE_FILE, encoding="ascii") as file:
        return int(file.read().split()[0])
    return _LINUX_DEFAULT
