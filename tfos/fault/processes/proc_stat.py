"""Read what Linux says of a process in ``/proc/PID/stat``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENDED", "ProcessStat"]

ENDED = frozenset("ZX")
"""The states of a process that has ended: a zombie, or one that is being removed."""


@dataclass(frozen=True)
class ProcessStat:
    """One process, at one moment.

    Parameters
    ----------
    state
        Its letter, as of ``ps``.
    group
        Its process group.
    start
        When it started, in ticks since the boot.
    """

    state: str
    group: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessStat | None:
        """Return a process's; None where there is no such process, or no ``/proc``."""
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                # The command, in parentheses, may hold anything: what matters comes after it.
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return None
        return cls(fields[0], int(fields[2]), int(fields[19]))
