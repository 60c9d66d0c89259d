"""Decide, from what every rank has to offer, which ranks take part in the next step. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfos.read_plan import FeedPosition

__all__ = ["Standing", "Turn", "next_turn"]


class Standing(NamedTuple):
    """What one rank has to offer for the next step: integers, as the ranks exchange them.

    Parameters
    ----------
    feed
        Its feed index.
    rows
        Rows of its next batch; 0 when its feed is over.
    epoch, row
        Its position after that batch.
    stopping
        1 once it was told to stop.
    """

    feed: int
    rows: int
    epoch: int
    row: int
    stopping: int

    @property
    def position(self) -> FeedPosition:
        """How far the feed has been used once the batch has."""
        return FeedPosition(self.epoch, self.row)

    @property
    def of_epoch(self) -> int:
        """The epoch the batch belongs to: after an epoch's last, the position is the next one's."""
        return self.epoch if self.row > 0 else self.epoch - 1


@dataclass(frozen=True)
class Turn:
    """One step of all ranks.

    Parameters
    ----------
    rows
        The rows of all who take part; 0: every feed is over.
    taking_part
        Their standings, by rank; the others wait with their batch, or have none.
    stopping
        Whether any rank was told to stop.
    """

    rows: int
    taking_part: dict[int, Standing]
    stopping: bool

    def share(self, rank: int) -> float:
        """Return which part of the rows is a rank's own."""
        return self.taking_part[rank].rows / self.rows if rank in self.taking_part else 0.0


def next_turn(standings: Sequence[Standing]) -> Turn:
    """Return the next step of ranks that stand so, in the order of their ranks.

    Nobody begins an epoch before all have ended the one before.
    """
    offers = [standing for standing in standings if standing.rows]
    epoch = min((standing.of_epoch for standing in offers), default=0)
    part = {
        rank: standing
        for rank, standing in enumerate(standings)
        if standing.rows and standing.of_epoch == epoch
    }
    rows = sum(standing.rows for standing in part.values())
    return Turn(rows, part, any(standing.stopping for standing in standings))
