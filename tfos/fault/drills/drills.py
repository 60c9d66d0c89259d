"""Cause a drill's faults: to a role's process, host or executor, to the driver, to ZooKeeper."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tfos import wire
from tfos.fault.drills.faults import Drill, Fault
from tfos.fault.drills.network_cut import cut_off, family_of
from tfos.progress import RoleProgress
from tfos.topology import TaskKey

if TYPE_CHECKING:
    from tfos.registry.contract import Registry

__all__ = ["DRILL_LOG_VARIABLE", "DriverDrill", "HostDrill", "drill_of"]

log = logging.getLogger("tfos")

DRILL_LOG_VARIABLE = "TFOS_DRILL_LOG"
"""Names a file that gets each announcement too: a log's last line is lost with a killed JVM."""

LOOK_EVERY_S = 0.05
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_SLOW_RUNS_S, _SLOW_STANDS_S = 0.02, 0.18
_BLOCK_BYTES = 4096
_CUT_WITHIN_S = 2.0


def drill_of(texts: Sequence[str], key: TaskKey | None) -> Drill:
    """Return the faults that the host of `key`, or for None the driver, is to cause."""
    return Drill(fault for fault in map(Fault.parse, texts) if fault.key == key)


class _Lookout:
    """Says which faults are due by how far training has come, as the roles tell the registry."""

    def __init__(self, drill: Drill) -> None:
        self._drill = drill
        self._next_look = 0.0

    def due(self, registry: Registry) -> list[Fault]:
        if not self._drill.watches_training or time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + LOOK_EVERY_S
        roles = [wire.from_json(RoleProgress, each) for each in registry.progress().values()]
        due = self._drill.due("step", max((role.progress.step for role in roles), default=0))
        if any(role.saving for role in roles):
            due += self._drill.due("checkpoint")
        return due


class HostDrill:
    """Belongs to the host's supervising thread; without faults it does nothing.

    Parameters
    ----------
    drill
        The faults.
    expire
        Ends this host's ZooKeeper session the way a server does.
    directory
        This host's own, on the disk that can be filled.
    """

    def __init__(self, drill: Drill, expire: Callable[[], None], directory: Path) -> None:
        self._drill = drill
        self._lookout = _Lookout(drill)
        self._expire = expire
        self._directory = directory

    def reach(self, point: str, pid: int, exit_with: Callable[[int], None] | None = None) -> None:
        """Cause what is due at a point; `exit_with` makes the training process `pid` exit."""
        for fault in self._drill.due(point):
            self._cause(fault, pid, exit_with)

    def look(self, registry: Registry, pid: int, exit_with: Callable[[int], None]) -> None:
        """Cause what is due by how far training has come."""
        for fault in self._lookout.due(registry):
            self._cause(fault, pid, exit_with)

    def _cause(self, fault: Fault, pid: int, exit_with: Callable[[int], None] | None) -> None:
        _announce(fault)
        victim = {"process": pid, "host": os.getpid()}.get(fault.part) or _executor()
        if fault.action == "expire":
            self._expire()
        elif fault.action == "exit":
            if exit_with is not None:
                exit_with(int(fault.amount))
        elif fault.action == "slow":
            _for_a_while(_slow_down, victim, fault.amount)
        elif fault.action == "fill":
            _for_a_while(_fill_disk, self._directory, fault.amount)
        elif fault.action == "cut":
            # What a machine's processes have with its own executor is no network's.
            _cut_off(victim, fault.amount, [_executor()])
        else:
            _signal(fault, victim)


class DriverDrill:
    """Causes the faults of the driver and of the embedded ZooKeeper; in the controller's thread."""

    def __init__(self, drill: Drill, server_pid: int | None) -> None:
        self._drill = drill
        self._lookout = _Lookout(drill)
        self._pids = {"driver": os.getpid(), "zookeeper": server_pid}

    def reach(self, point: str) -> None:
        """Cause what is due at a point."""
        for fault in self._drill.due(point):
            self._cause(fault)

    def look(self, registry: Registry) -> None:
        """Cause what is due by how far training has come; raises RendezvousError as `progress`."""
        for fault in self._lookout.due(registry):
            self._cause(fault)

    def _cause(self, fault: Fault) -> None:
        _announce(fault)
        pid = self._pids[fault.part]
        if pid is None:
            return
        if fault.action == "cut":
            _cut_off(pid, fault.amount)
        else:
            _signal(fault, pid)


def _signal(fault: Fault, pid: int) -> None:
    # A process that has just ended by itself is past every fault.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, _SIGNALS[fault.action])


def _announce(fault: Fault) -> None:
    line = f"drill: {fault} at={time.time():.3f}"
    log.warning("%s", line)
    path = os.environ.get(DRILL_LOG_VARIABLE)
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def _executor() -> int:
    """Return the JVM that this Python worker belongs to."""
    for ancestor in psutil.Process().parents():
        if "java" in ancestor.name():
            return int(ancestor.pid)
    raise RuntimeError("this role host has no JVM above it")


def _for_a_while(cause: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=cause, args=arguments, name="tfos-drill", daemon=True).start()


def _cut_off(pid: int, seconds: float, spared: Iterable[int] = ()) -> None:
    begun = threading.Event()
    _for_a_while(cut_off, partial(family_of, pid), seconds, spared, begun)
    # What comes after the fault's point comes after the fault.
    begun.wait(_CUT_WITHIN_S)


def _slow_down(pid: int, seconds: float) -> None:
    """Let a process run for a tenth of the time."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(_SLOW_STANDS_S)
            os.kill(pid, signal.SIGCONT)
            time.sleep(_SLOW_RUNS_S)
    except ProcessLookupError:
        return


def _fill_disk(directory: Path, seconds: float) -> None:
    """Leave no room on a directory's file system."""
    # In a directory that is removed whatever becomes of this process.
    with tempfile.TemporaryFile(dir=directory) as ballast:
        size, piece = 0, 1 << 30
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                os.posix_fallocate(ballast.fileno(), size, piece)
                size += piece
            except OSError:
                piece //= 2
            if piece < _BLOCK_BYTES:
                # Again: others may free some meanwhile.
                piece = 1 << 20
                time.sleep(LOOK_EVERY_S)
    log.warning("drill: the disk has room again")
