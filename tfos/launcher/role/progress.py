"""Publish how far a role is, at a pace the registry can bear, and read how far the others are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from tfos.errors import RendezvousConnectionError, RendezvousError, SessionLostError
from tfos.launcher.role.membership import HostSession, Replaced
from tfos.launcher.role.process_life import LifeReport
from tfos.topology import Life, Role, TaskKey

__all__ = ["RoleProgress"]

log = logging.getLogger("tfos")

EVERY_S = 1.0
WRITES_PER_S = 200
"""What all roles together may write: the more they are, the rarer each one does."""


class RoleProgress:
    """Belongs to the host's supervising thread.

    Parameters
    ----------
    session
        The role's registration.
    key
        The role.
    fed
        Says how many rows of ``train`` the role was fed; None while there may be more.
    """

    def __init__(
        self, session: HostSession, key: TaskKey, fed: Callable[[], int | None] = lambda: None
    ) -> None:
        self._session = session
        self._fed = fed
        self._key = key
        self._life = Life(key, 0, 0)
        self._every_s = EVERY_S
        self._next = 0.0
        self._shown: Mapping[str, Any] = {}

    def begin(self, life: Life, num_roles: int) -> None:
        """Publish for a life from here on, as one of so many roles."""
        self._life = life
        self._every_s = max(EVERY_S, num_roles / WRITES_PER_S)

    def publish(self, report: LifeReport, *, at_once: bool = False) -> None:
        """Publish what a life has told, if it is time and there is news; blocks for one write.

        That a checkpoint begins or is complete is told without delay, and so is a notice.
        """
        now = time.monotonic()
        at_once = at_once or report.saving != self._shown.get("saving", False)
        at_once = at_once or report.notices != self._shown.get("notices", [])
        if (now < self._next and not at_once) or not self._session.connected:
            return
        document = {
            **report.progress,
            "generation": self._life.generation,
            "respawn": self._life.respawn,
            "stepping_since": report.stepping_since,
            "saving": report.saving,
            "read": None if report.read is None else list(report.read),
            "notices": list(report.notices),
            "aim": report.aim,
            "fed": self._fed(),
        }
        nothing = report.stepping_since is None and not report.notices
        if document == self._shown or nothing:
            return
        self._next = now + self._every_s
        try:
            self._session.registry.publish_progress(self._key, document)
            self._shown = document
        except (RendezvousConnectionError, SessionLostError) as error:
            log.debug("progress of %s not published: %s", self._key, error)
        except RendezvousError as error:
            log.warning("%s", error)
            self._session.notices.put(Replaced())

    def positions(self) -> dict[str, Any]:
        """Return how far every worker has read, as last published, for a checkpoint of this moment.

        What a process of another generation had read is not in the variables now.
        """
        try:
            progress = self._session.registry.progress()
        except RendezvousError as error:
            log.warning("how far workers have read is unknown: %s", error)
            return {"positions": {}}
        return {
            "positions": {
                str(key.index): document["read"]
                for key, document in progress.items()
                if key.role is Role.WORKER
                and document["read"] is not None
                and document["generation"] == self._life.generation
            }
        }
