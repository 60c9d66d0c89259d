"""Measure how long a recovery takes: from the failure until every restarted role steps again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfos.fault.failures.restart_policy import Incident
from tfos.progress import RoleProgress
from tfos.topology import Life, TaskKey

__all__ = ["RecoveryClock"]


class RecoveryClock:
    """Follows the latest recovery; an earlier one that it overtakes counts until the same end.

    Attributes
    ----------
    seconds
        How long each incident's recovery took, by its index; those not over have none.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._since: dict[int, float] = {}
        self._awaited: dict[TaskKey, Life] = {}

    @property
    def open(self) -> bool:
        """Whether a recovery is under way."""
        return bool(self._since)

    def start(self, incidents: Sequence[Incident], lives: Sequence[Life]) -> None:
        """Begin to wait for `lives` to step, because of the latest of `incidents`."""
        self._since[len(incidents) - 1] = incidents[-1].cause.time
        self._awaited.update({life.key: life for life in lives})

    def look(self, progress: Mapping[TaskKey, RoleProgress]) -> float | None:
        """Return the seconds the longest recovery took if all awaited lives step; else None."""
        instants = [_stepping_since(life, progress) for life in self._awaited.values()]
        known = [instant for instant in instants if instant is not None]
        if not self._since or len(known) < len(instants):
            return None
        took = {index: max(known) - since for index, since in self._since.items()}
        self.seconds.update(took)
        self._since.clear()
        self._awaited.clear()
        return max(took.values())


def _stepping_since(life: Life, progress: Mapping[TaskKey, RoleProgress]) -> float | None:
    role = progress.get(life.key)
    if role is None or (role.generation, role.respawn) < (life.generation, life.respawn):
        return None
    return role.stepping_since
