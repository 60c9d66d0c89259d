"""Publish a role's progress at a rate that the registry can bear, and read the others'."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tfos import wire
from tfos.errors import RendezvousConnectionError, RendezvousError, SessionLostError
from tfos.launcher.role.membership import HostSession, Replaced
from tfos.launcher.role.process_life import LifeReport
from tfos.progress import RoleProgress
from tfos.read_plan import FeedPosition
from tfos.topology import Life, Role, TaskKey

__all__ = ["ProgressPublisher"]

log = logging.getLogger("tfos")

EVERY_S = 1.0
WRITES_PER_S = 200
"""What all roles together may write: the more they are, the rarer each one does."""


class ProgressPublisher:
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
        self._shown = RoleProgress()

    def begin(self, life: Life, num_roles: int) -> None:
        """Publish for a life from here on, as one of so many roles."""
        self._life = life
        self._every_s = max(EVERY_S, num_roles / WRITES_PER_S)

    def publish(self, report: LifeReport, *, at_once: bool = False) -> None:
        """Publish what a life has told, if it is time and there is news; blocks for one write.

        That a checkpoint begins or is complete is told without delay, and so is a notice.
        """
        now = time.monotonic()
        at_once = at_once or report.saving != self._shown.saving
        at_once = at_once or report.notices != self._shown.notices
        if (now < self._next and not at_once) or not self._session.connected:
            return
        role = RoleProgress(
            progress=report.progress,
            generation=self._life.generation,
            respawn=self._life.respawn,
            stepping_since=report.stepping_since,
            saving=report.saving,
            read=report.read,
            notices=report.notices,
            aim=report.aim,
            fed=self._fed(),
        )
        nothing = report.stepping_since is None and not report.notices
        if role == self._shown or nothing:
            return
        self._next = now + self._every_s
        try:
            self._session.registry.publish_progress(self._key, wire.to_json(role))
            self._shown = role
        except (RendezvousConnectionError, SessionLostError) as error:
            log.debug("progress of %s not published: %s", self._key, error)
        except RendezvousError as error:
            log.warning("%s", error)
            self._session.notices.put(Replaced())

    def positions(self) -> dict[int, FeedPosition]:
        """Return how far every worker has read, as last published, for a checkpoint of this moment.

        What a process of another generation had read is not in the variables now.
        """
        try:
            found = self._session.registry.progress()
        except RendezvousError as error:
            log.warning("how far workers have read is unknown: %s", error)
            return {}
        workers = {
            key.index: wire.from_json(RoleProgress, document)
            for key, document in found.items()
            if key.role is Role.WORKER
        }
        return {
            index: role.read
            for index, role in workers.items()
            if role.read is not None and role.generation == self._life.generation
        }
