"""Cut processes off the network for a while, for a drill: what reaches their sockets is dropped.

A filter that accepts nothing is attached to every TCP and UDP socket (Linux, ``SO_ATTACH_FILTER``).
The peer hears no reset, only silence, as from a machine whose cable is out; and as TCP sends little
that is not acknowledged, next to nothing leaves either. When the filter goes, connections that
still exist go on.

No privilege is needed for this process and what it started. Others, such as the executor above it,
must be ours to trace: as root, or with ``kernel.yama.ptrace_scope`` 0.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
import socket
import struct
import sys
import threading
import time
import weakref
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
_GONE = (errno.ESRCH, errno.EBADF)

_turn = threading.Lock()
_cut_here = threading.Event()
"""Whether this process is cut off itself."""
_connected_meanwhile: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""What it has connected since it is."""


def family_of(pid: int) -> set[int]:
    """Return a process's id and those of its descendants; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return {pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.NoSuchProcess:
        return set()


def cut_off(
    pids: Callable[[], Iterable[int]],
    seconds: float,
    spared: Iterable[int] = (),
    begun: threading.Event | None = None,
) -> None:
    """Cut processes off; blocks for so many seconds, and heals them then.

    A socket that one of them opens meanwhile is cut off within 0.05 s; one that this process
    connects by Python, before it connects. A second call of this process waits for the first. What
    is not this process stays cut off should this one end before its time.

    Parameters
    ----------
    pids
        Says which processes, again and again; those that are gone are left.
    seconds
        For how long.
    spared
        Processes of the same machine: open connections to them, and of `pids` with each other,
        stay.
    begun
        Set once everything that is open has been cut off.
    """
    with _turn, ExitStack() as healing:
        until = time.monotonic() + seconds
        inside = frozenset(spared)
        cut: set[_Place] = set()
        refused: set[int] = set()
        if os.getpid() in pids():
            _hear_of_own_connections()
            healing.callback(_heal_own)
            _cut_here.set()
        while time.monotonic() < until:
            for place in _places(set(pids()), inside):
                if place in cut or place.pid in refused:
                    continue
                try:
                    found = _borrow(place)
                except OSError as error:
                    log.warning(
                        "drill: process %d keeps its network: %s; only root, or a process that "
                        "kernel.yama.ptrace_scope lets trace it, can cut it off",
                        place.pid,
                        error,
                    )
                    refused.add(place.pid)
                    continue
                cut.add(place)
                if found is not None:
                    healing.callback(_heal, found)
                    _attach(found)
            if begun is not None:
                begun.set()
            time.sleep(_LOOK_EVERY_S)
    log.warning("drill: the network is back")


@functools.cache
def _hear_of_own_connections() -> None:
    """Cut off, from now on, what this process connects while it is cut off; once per process."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not _cut_here.is_set():
            return
        if arguments[0].family in (socket.AF_INET, socket.AF_INET6):
            _connected_meanwhile.add(arguments[0])
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


def _plain(address: tuple[Any, ...] | None) -> tuple[str, int] | None:
    # One end of a connection may say in IPv6 what the other says in IPv4.
    return (str(address[0]).removeprefix("::ffff:"), address[1]) if address else None


def _borrow(place: _Place) -> socket.socket | None:
    """Open a second descriptor of a process's socket; None when it is no more.

    Raises
    ------
    OSError
        If it is not ours to have.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        process = os.pidfd_open(place.pid)
    except ProcessLookupError:
        return None
    try:
        own = libc.syscall(_PIDFD_GETFD, process, place.descriptor, 0)
        number = ctypes.get_errno()
    finally:
        os.close(process)
    if own < 0 and number in _GONE:
        return None
    if own < 0:
        raise OSError(number, os.strerror(number))
    try:
        borrowed = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        return None
    # The number may be another file's by now.
    inet = borrowed.family in (socket.AF_INET, socket.AF_INET6)
    if inet and _plain(borrowed.getsockname()) == place.local:
        return borrowed
    borrowed.close()
    return None


def _attach(cut: socket.socket) -> None:
    program = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    filter_ = struct.pack("@HP", 1, ctypes.addressof(program))
    cut.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def _detach(cut: socket.socket) -> None:
    with suppress(OSError):  # closed, or without one
        cut.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _heal(cut: socket.socket) -> None:
    with cut:
        _detach(cut)


def _heal_own() -> None:
    _cut_here.clear()
    for connected in list(_connected_meanwhile):
        _detach(connected)
    _connected_meanwhile.clear()
