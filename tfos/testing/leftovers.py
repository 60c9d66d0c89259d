"""Find what a run left behind on this machine: processes, files, spools, znodes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from tfos.errors import InfrastructureError

__all__ = ["count_znodes", "processes_marked", "spools_of"]

_SHARED_MEMORY = Path("/dev/shm")
_ANSWER_TIMEOUT_S = 5.0


def processes_marked(variable: str, value: str) -> list[psutil.Process]:
    """Return every live process of this user whose environment holds a variable so."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def spools_of(run_ids: Iterable[str]) -> list[str]:
    """Return the names of the memory-backed spools of these runs; other runs have theirs there."""
    names = [path.name for path in _SHARED_MEMORY.glob("tfos-*")]
    return sorted(name for name in names if any(run_id in name for run_id in run_ids))


def count_znodes(host: str, port: int) -> int:
    """Ask a ZooKeeper server how many nodes it holds; blocks for at most 5 s.

    Raises
    ------
    InfrastructureError
        If it does not say so.
    """
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_TIMEOUT_S) as link:
            link.sendall(b"srvr")
            while part := link.recv(4096):
                answer += part
    except OSError as error:
        raise InfrastructureError(
            f"ZooKeeper at {host}:{port} cannot be asked what it holds: {error}"
        ) from error
    match = re.search(rb"Node count: (\d+)", answer)
    if match is None:
        raise InfrastructureError(
            f"ZooKeeper at {host}:{port} does not say how many nodes it holds: is its "
            "4lw.commands.whitelist without srvr?"
        )
    return int(match[1])
