"""The messages on the control channel between a role host and its training process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from tfos import wire
from tfos.fault.failures.record import Failure
from tfos.progress import Aim, Notice, Progress
from tfos.read_plan import FeedPosition
from tfos.topology import TaskKey

__all__ = [
    "Artifact",
    "Beat",
    "Begin",
    "Ended",
    "Exit",
    "FromHost",
    "FromProcess",
    "Phase",
    "Positions",
    "PositionsWanted",
    "Running",
    "Saving",
    "Stop",
    "from_host",
    "from_process",
    "to_json",
]


# -- from the training process ---------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """The process enters a phase: started, imported, begun, connected, ended."""

    name: str
    time: float


@dataclass(frozen=True)
class Beat:
    """The heartbeat: `read` is the position in ``train`` up to which every row has been used.

    `reading` is whether any row was handed out.
    """

    read: FeedPosition | None
    reading: bool


@dataclass(frozen=True)
class Saving:
    """Writing a checkpoint begins, or has ended."""

    on: bool


@dataclass(frozen=True)
class Artifact:
    """The process has read or written something that the run's record names."""

    name: str
    path: str


@dataclass(frozen=True)
class PositionsWanted:
    """Answer with `Positions` of this `number`."""

    number: int


@dataclass(frozen=True)
class Ended:
    """The last message: how the role's work ended, before ``Job.shutdown``.

    Parameters
    ----------
    result
        What ``train`` returned, as a JSON value.
    failure
        Why it failed; None if it did not.
    """

    result: Any = None
    failure: Failure | None = None


FromProcess = Phase | Beat | Progress | Aim | Notice | Saving | Artifact | PositionsWanted | Ended


# -- from the role host ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """Play the role that the file `spec` describes; `workers` as in `Running`."""

    spec: str
    workers: tuple[TaskKey, ...]


@dataclass(frozen=True)
class Running:
    """The workers of the generation that have not ended for good."""

    workers: tuple[TaskKey, ...]


@dataclass(frozen=True)
class Positions:
    """How far each worker has used its rows of ``train``, by feed index."""

    number: int
    positions: Mapping[int, FeedPosition]


@dataclass(frozen=True)
class Stop:
    """The run ends."""


@dataclass(frozen=True)
class Exit:
    """End with this exit code, now: a drill."""

    code: int


FromHost = Begin | Running | Positions | Stop | Exit


def to_json(message: FromProcess | FromHost) -> dict[str, Any]:
    """Return a message as the JSON object that the channel carries."""
    return cast(dict[str, Any], wire.to_json(message, FromProcess | FromHost))


def from_process(data: Mapping[str, Any]) -> FromProcess:
    """Read what a training process sent; raises ValueError on anything else."""
    return cast(FromProcess, wire.from_json(cast(Any, FromProcess), data))


def from_host(data: Mapping[str, Any]) -> FromHost:
    """Read what a role host sent; raises ValueError on anything else."""
    return cast(FromHost, wire.from_json(cast(Any, FromHost), data))
