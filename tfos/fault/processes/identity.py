"""Which process one is, told from every other, and whether it can be proven dead or alive.

Independent of the wall clock, which is set while processes run: after a laptop slept, by NTP.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tfos.fault.processes.proc_stat import ENDED, ProcessStat

__all__ = ["ProcessIdentity", "Proof"]

_CONTAINER: Final = re.compile(r"container_(?:e\d+_)?(\d+_\d+)_(\d+)_\d+")


class Proof(Enum):
    """What can be said of another process from here."""

    ALIVE = "it runs on this machine"
    DEAD = "it has ended"
    NONE = "it runs, or ran, elsewhere"


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from every other that has or had its number.

    Parameters
    ----------
    machine
        The boot of its host and its namespace of process ids; empty where there is no ``/proc``.
    pid
        Its number there.
    start
        When it started, in ticks since that boot.
    application, attempt
        Of a driver in a YARN container: the application, and which attempt of it; else empty and 0.
    """

    machine: str
    pid: int
    start: int
    application: str
    attempt: int

    @classmethod
    def here(cls, environ: Mapping[str, str] = os.environ) -> ProcessIdentity:
        """Return this process."""
        container = _CONTAINER.fullmatch(environ.get("CONTAINER_ID", ""))
        application, attempt = container.groups() if container else ("", "0")
        pid = os.getpid()
        return cls(_machine(), pid, _start_of(pid) or 0, application, int(attempt))

    def judged_from(self, observer: ProcessIdentity) -> Proof:
        """Return what `observer`, the calling process, can prove of this one."""
        if self.application and self.application == observer.application:
            # YARN starts an attempt once the one before is over.
            return Proof.DEAD if self.attempt < observer.attempt else Proof.NONE
        if not self.machine or self.machine != observer.machine:
            return Proof.NONE
        return Proof.ALIVE if _start_of(self.pid) == self.start else Proof.DEAD


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> int | None:
    """Return when a process started, in ticks since the boot; None for none, or a zombie."""
    stat = ProcessStat.of(pid)
    return None if stat is None or stat.state in ENDED else stat.start
