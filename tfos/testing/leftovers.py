"""Find what a run left behind on this machine: processes, files, spools, znodes."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tfos.errors import InfrastructureError

__all__ = ["count_znodes", "processes_marked", "spools_of"]

_SHARED_MEMORY = Path("/dev/shm")
_ANSWER_TIMEOUT_S = 5.0
_EXEC_WITHIN_S = 0.2


def processes_marked(variable: str, value: str) -> list[psutil.Process]:
    """Return every live process of this user whose environment holds a variable so.

    Blocks for 0.2 s at most beyond the reading.
    """
    found: list[psutil.Process] = []
    unread = list(psutil.process_iter())
    deadline = time.monotonic() + _EXEC_WITHIN_S
    # During exec, Linux shows no environment of a process that its parent takes for started;
    # nor, ever, that of a thread of the kernel.
    while unread and time.monotonic() < deadline:
        still_unread = []
        for process in unread:
            try:
                environment = process.environ()
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if not environment:
                still_unread.append(process)
            elif environment.get(variable) == value:
                found.append(process)
        unread = still_unread
        if unread:
            time.sleep(_EXEC_WITHIN_S / 10)
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
