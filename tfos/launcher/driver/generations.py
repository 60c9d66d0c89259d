"""Freeze generations, each with the store its processes find each other by. On the driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tfos.frameworks.contract import Store
from tfos.registry.contract import Generation, Member, Registry
from tfos.topology import ClusterSpec, TaskKey

__all__ = ["Generations", "OpenStore"]

log = logging.getLogger(__name__)

OpenStore = Callable[[], Store | None]
"""Opens what the processes of one generation find each other by; None where they need nothing."""


class Generations:
    """Publishes them, one after the other; in the controller's thread.

    Parameters
    ----------
    registry
        The driver's session.
    open_store
        Called for each generation. Its store is closed when the next is published, or by `close`.
    """

    def __init__(self, registry: Registry, open_store: OpenStore) -> None:
        self._registry = registry
        self._open_store = open_store
        self._store: Store | None = None

    def publish(self, number: int, members: Mapping[TaskKey, Member]) -> None:
        """Freeze `members` as generation `number`.

        Raises
        ------
        RendezvousError
            As `Registry.publish_generation`.
        """
        cluster = ClusterSpec({key: member.endpoint for key, member in members.items()})
        orders = {key: member.row_order for key, member in members.items()}
        store = self._open_store()
        endpoint = None if store is None else store.endpoint
        before = self._store
        try:
            self._registry.publish_generation(Generation(number, cluster, orders, endpoint))
        except BaseException:
            _close(store)
            raise
        self._store = store
        _close(before)

    def close(self) -> None:
        """Close the last generation's store; idempotent."""
        store, self._store = self._store, None
        _close(store)


def _close(store: Store | None) -> None:
    if store is None:
        return
    try:
        store.close()
    except Exception:
        # What failed in the run must not be hidden by this.
        log.exception("the store of a generation was not closed")
