"""Cut processes off the network for a while, for a drill: what reaches their sockets is dropped.

A filter that accepts nothing is attached to every TCP and UDP socket (Linux, ``SO_ATTACH_FILTER``:
no privilege is needed for one's own process and its descendants). The peer hears no reset, only
silence, as from a machine whose cable is out; and as TCP sends little that is not acknowledged,
next to nothing leaves either. When the filter goes, connections that still exist go on.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import psutil

__all__ = ["cut_off", "family_of"]

log = logging.getLogger("tfos")

_LOOK_EVERY_S = 0.05
# From asm-generic/socket.h, asm-generic/unistd.h and linux/filter.h; Python's modules lack them.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_PIDFD_GETFD = 438
_RETURN = 0x06

_cut_here = threading.Event()
"""Whether this process is cut off itself."""


def family_of(pid: int) -> set[int]:
    """Return a process's id and those of its descendants; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return {pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.NoSuchProcess:
        return set()


def cut_off(pids: Callable[[], Iterable[int]], seconds: float, spared: Iterable[int] = ()) -> None:
    """Cut processes off; blocks for so many seconds, and heals them then.

    A socket that one of them opens meanwhile is cut off within 0.05 s; one that this process
    connects by Python, before it connects. For one thread of a process at a time.

    Parameters
    ----------
    pids
        Says which processes, again and again; those that are gone or not ours to touch are left.
    seconds
        For how long.
    spared
        Processes of the same machine: connections to them, and of `pids` with each other, stay.
    """
    until = time.monotonic() + seconds
    inside = frozenset(spared)
    cut: set[_Place] = set()
    if os.getpid() in pids():
        _hear_of_own_connections()
        _cut_here.set()
    with ExitStack() as healing:
        over = False
        while not over:
            over = time.monotonic() >= until
            if over:
                # Before the last look, which finds whatever was cut off until now: to heal it.
                _cut_here.clear()
            for place in _places(set(pids()), inside):
                if place not in cut and (found := _borrow(place)) is not None:
                    healing.callback(_heal, found)
                    _attach(found)
                    cut.add(place)
            time.sleep(_LOOK_EVERY_S)
    log.warning("drill: the network is back")


@functools.cache
def _hear_of_own_connections() -> None:
    """Cut off, from now on, what this process connects while it is cut off; once per process."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not _cut_here.is_set():
            return
        if arguments[0].family in (socket.AF_INET, socket.AF_INET6):
            _attach(arguments[0])

    # A session that reconnects in the moment before it is found would live for ever.
    sys.addaudithook(hear)


class _Place(NamedTuple):
    """A socket: whose descriptor, and what it connects."""

    pid: int
    descriptor: int
    local: tuple[str, int]
    peer: tuple[str, int] | None


def _places(pids: set[int], spared: frozenset[int]) -> list[_Place]:
    """Return the sockets of `pids` that lead elsewhere than to one of them or of `spared`."""
    found, here = [], set()
    for pid in pids | spared:
        with suppress(psutil.Error):
            for connection in psutil.Process(pid).net_connections(kind="inet"):
                local, peer = _plain(connection.laddr), _plain(connection.raddr)
                if local is not None:
                    here.add(local)
                    if pid in pids and connection.fd >= 0:
                        found.append(_Place(pid, connection.fd, local, peer))
    return [place for place in found if place.peer is None or place.peer not in here]


def _plain(address: Any) -> tuple[str, int] | None:
    # One end of a connection may say in IPv6 what the other says in IPv4.
    return (address.ip.removeprefix("::ffff:"), address.port) if address else None


def _borrow(place: _Place) -> socket.socket | None:
    """Open a second descriptor of a process's socket; None when it cannot be had."""
    try:
        process = os.pidfd_open(place.pid)
    except ProcessLookupError:
        return None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        own = libc.syscall(_PIDFD_GETFD, process, place.descriptor, 0)
    finally:
        os.close(process)
    if own < 0:
        log.debug("process %d keeps a socket: %s", place.pid, os.strerror(ctypes.get_errno()))
        return None
    try:
        return socket.socket(fileno=own)
    except OSError:  # closed meanwhile, and the number is another file's
        os.close(own)
        return None


def _attach(cut: socket.socket) -> None:
    program = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    filter_ = struct.pack("@HP", 1, ctypes.addressof(program))
    cut.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def _heal(cut: socket.socket) -> None:
    with cut, suppress(OSError):
        cut.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
