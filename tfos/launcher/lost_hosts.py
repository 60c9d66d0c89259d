"""Bring lost role hosts back: wait for them a moment, then have Spark start others. On the driver.

One whose session expired comes back by itself, with its spool; one that died Spark runs again
unasked; one that hangs, or is cut off from ZooKeeper, would hold its task for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from tfos.fault.failure import Failure
from tfos.launcher.registry_events import RegistryReader
from tfos.launcher.role_groups import GroupReport, RoleGroup
from tfos.topology import Role, TaskKey

__all__ = ["RETURN_WITHIN_S", "LostHosts"]

log = logging.getLogger(__name__)

RETURN_WITHIN_S = 3.0
"""How long a lost role host may take to register again before Spark is asked to replace it."""


class LostHosts:
    """In the controller's thread; no call blocks for longer than one into Spark.

    Parameters
    ----------
    groups
        The role groups.
    told
        Who was registered.
    """

    def __init__(self, groups: Mapping[Role, RoleGroup], told: RegistryReader) -> None:
        self._groups = groups
        self._told = told
        self._rerun_at: dict[TaskKey, float] = {}

    def await_return(self, key: TaskKey) -> None:
        """Give a role host its time to come back; what is done after it, `look` does."""
        log.warning("%s is lost: waiting for it to come back", key)
        self._rerun_at[key] = time.monotonic() + RETURN_WITHIN_S

    def look(self) -> None:
        """Have Spark end the tasks of those whose time is over.

        It runs such a task again; that of a gang takes the others with it, and the gang's job ends.
        """
        now = time.monotonic()
        for key in [key for key, at in self._rerun_at.items() if now >= at]:
            del self._rerun_at[key]
            if key in self._told.members:
                continue
            last = self._told.retire(key)
            if last is not None:
                log.warning("%s has not come back: Spark is to run its task again", key)
                self._groups[key.role].kill_task(last.task)

    def out_of_memory(self) -> Failure | None:
        """Look for a container killed for its memory; started again it would end the same way."""
        failures = (group.out_of_memory() for group in self._groups.values())
        return next((failure for failure in failures if failure is not None), None)

    def resubmit(self, role: Role, on_end: Callable[[GroupReport], None]) -> None:
        """Submit a gang again; its hosts so far count as gone, though their sessions live on."""
        log.warning("submitting the %s tasks again, all together", role)
        self._rerun_at = {key: at for key, at in self._rerun_at.items() if key.role != role}
        self._told.retire_group(role, self._groups[role].resubmit(on_end))
