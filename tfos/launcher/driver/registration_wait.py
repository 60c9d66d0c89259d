"""Wait for role hosts to register, and tell meanwhile who is missing. Runs on the driver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from tfos.config import JobConfig
from tfos.launcher.driver.events import Halted
from tfos.launcher.driver.halts import not_registered
from tfos.topology import TaskKey, describe_keys

__all__ = ["TELL_EVERY_S", "RegistrationWait"]

log = logging.getLogger(__name__)

TELL_EVERY_S: Final = 20.0
"""How often the missing ones are named."""


class RegistrationWait:
    """In the controller's thread.

    Parameters
    ----------
    config
        Says how long.
    explain
        Says what may keep roles from registering; blocks for a few calls into the JVM.
    """

    def __init__(self, config: JobConfig, explain: Callable[[frozenset[TaskKey]], str]) -> None:
        self._config = config
        self._explain = explain
        self.begin()

    def begin(self) -> None:
        """Wait from now on."""
        now = time.monotonic()
        self._deadline = now + self._config.registry.register_timeout_s
        self._tell_at = now + TELL_EVERY_S

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= min(self._tell_at, self._deadline)

    def look(self, missing: frozenset[TaskKey]) -> Halted | None:
        """Tell who is missing; return the end of the run once the time is over, None before."""
        now = time.monotonic()
        if now >= self._deadline:
            return not_registered(self._config, missing, self._explain(missing))
        self._tell_at = now + TELL_EVERY_S
        left = f"{self._deadline - now:.0f} s more at most"
        log.info("waiting for %s to register, %s", describe_keys(missing), left)
        return None
