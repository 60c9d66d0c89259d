"""How far training is, as roles publish it while it runs. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from tfos.read_plan import FeedPosition

__all__ = ["NOTICES_KEPT", "Aim", "Notice", "Progress", "RoleProgress"]

NOTICES_KEPT: Final = 8
"""How many of a role's latest notices travel with its progress."""
_MAX_CHARS: Final = 4000


@dataclass(frozen=True)
class Progress:
    """What `TrainContext.report` was last given; before that, step -1.

    Parameters
    ----------
    step
        Steps completed, resumed ones included.
    rows
        Rows trained on by this process.
    metrics
        Numbers by name.
    """

    step: int = -1
    rows: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aim:
    """What ends the training, whichever comes first; None for no such end."""

    epochs: int | None = None
    max_steps: int | None = None


@dataclass(frozen=True)
class Notice:
    """One line for the run's log.

    Parameters
    ----------
    text
        The line.
    level
        How much it matters.
    at
        When it was written, seconds since the epoch on its own host.
    """

    text: str
    level: Literal["info", "warning"]
    at: float

    @classmethod
    def of(cls, text: str, *, warning: bool, at: float) -> Notice:
        """Return a notice of any text, made one line of bounded length."""
        line = " ".join(text.split())[:_MAX_CHARS]
        return cls(line, "warning" if warning else "info", at)


@dataclass(frozen=True)
class RoleProgress:
    """How far one role is, as its host publishes it.

    Parameters
    ----------
    progress
        What its process reported last.
    generation, respawn
        Which life of its process that is.
    stepping_since
        When that life took its first step or handed out its first rows, seconds since the epoch;
        None before.
    saving
        Whether it writes a checkpoint now.
    read
        The position in ``train`` up to which every row has been used; None before the first.
    notices
        Its latest lines for the run's log.
    aim
        What ends its training; None where unknown.
    fed
        How many rows of ``train`` it was fed; None while there may be more.
    """

    progress: Progress = Progress()
    generation: int = 0
    respawn: int = 0
    stepping_since: float | None = None
    saving: bool = False
    read: FeedPosition | None = None
    notices: tuple[Notice, ...] = ()
    aim: Aim | None = None
    fed: int | None = None
