"""Wait for a generation as a role host does: by its orders, a stop and its session's state."""

from __future__ import annotations

import queue
import time

from tfos.registry.contract import Connection, Generation, Registry, StopNotice
from tfos.topology import TaskKey

__all__ = ["WaitingHost"]


class WaitingHost:
    """A role host's ear, open from now on until the session is closed.

    Parameters
    ----------
    registry
        The host's session.
    key
        The role it plays.
    """

    def __init__(self, registry: Registry, key: TaskKey) -> None:
        self._registry = registry
        self._heard: queue.SimpleQueue[int | StopNotice | Connection] = queue.SimpleQueue()
        registry.watch_connection(self._heard.put)
        registry.watch_stop(self._heard.put)
        registry.watch_orders(key, lambda generation, _: self._heard.put(generation))

    def next(self, after: int, timeout_s: float) -> Generation | StopNotice | Connection:
        """Return the first generation heard of above `after`, read from the registry.

        The run's stop, or LOST, is returned in its place when it is heard before. Raises
        `queue.Empty` when none of them comes within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            heard = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(heard, StopNotice) or heard is Connection.LOST:
                return heard
            if isinstance(heard, int) and heard > after:
                return self._registry.generation(heard)
