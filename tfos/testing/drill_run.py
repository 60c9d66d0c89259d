"""Hold what one run under faults left to judge it by: its end, its record, its faults. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CausedFault", "DrillIncident", "DrillRun", "read_faults"]

_CAUSED = re.compile(r"drill: (\S+) at=(\d+\.\d+)")


@dataclass(frozen=True)
class CausedFault:
    """A fault that was caused.

    Parameters
    ----------
    fault
        As it was asked for: ``ACTION:TARGET@POINT``.
    at
        When, in seconds since the epoch.
    """

    fault: str
    at: float


@dataclass(frozen=True)
class DrillIncident:
    """A failure that a restart answered, beside the fault before it.

    Parameters
    ----------
    reaction
        "respawn" or "new_generation".
    key, message
        Who failed first, and how.
    generation, step
        Where the run was.
    detected_s
        Seconds from the fault until the driver had decided what answers it; None when no fault
        came before.
    recovered_s
        Seconds from the fault until every restarted role stepped again; None when no fault came
        before, or the run ended sooner than that.
    """

    reaction: str
    key: str
    message: str
    generation: int
    step: int
    detected_s: float | None
    recovered_s: float | None


@dataclass(frozen=True)
class DrillRun:
    """One ``pl_submit`` that ended.

    Parameters
    ----------
    code
        Its exit code, as `tfos.errors.ExitCode`; minus a signal's number if one killed it.
    out, err
        What it wrote. Role hosts write there too, unless their executors have a JVM of their own.
    record
        The run's record (`tfos.RunResult` as JSON); empty when there is none.
    faults
        The faults that were caused, oldest first.
    seconds
        How long it took.
    """

    code: int
    out: str
    err: str
    record: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[CausedFault, ...] = ()
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Everything written."""
        return self.out + self.err

    @property
    def incidents(self) -> tuple[DrillIncident, ...]:
        """The failures that restarts answered, oldest first."""
        return tuple(self._incident(document) for document in self.record.get("incidents", ()))

    def _incident(self, document: Mapping[str, Any]) -> DrillIncident:
        cause = document["failures"][0]
        # Clocks of one machine; a moment of grace for what is rounded.
        earlier = [f.at for f in self.faults if f.at <= cause["time"] + 0.01]
        since = earlier[-1] if earlier else None
        took_s = document["recovered_s"]
        known = since is not None and took_s is not None
        return DrillIncident(
            reaction=document["reaction"],
            key=cause["key"],
            message=cause["message"],
            generation=document["generation"],
            step=document["step"],
            detected_s=None if since is None else document["at"] - since,
            recovered_s=cause["time"] + took_s - since if known else None,
        )


def read_faults(text: str) -> tuple[CausedFault, ...]:
    """Return the faults that announcements speak of, oldest first."""
    found = (CausedFault(fault, float(at)) for fault, at in _CAUSED.findall(text))
    return tuple(sorted(found, key=lambda caused: caused.at))
