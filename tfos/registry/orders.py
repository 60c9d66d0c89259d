"""Merge what a role host hears from two nodes into what its process should be. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tfos.topology import Life

__all__ = ["Order", "OrderLine"]


class Order(NamedTuple):
    """A process to be: the generation's number and the role's respawn count in it."""

    generation: int
    respawn: int

    @classmethod
    def of_generations(cls, data: bytes) -> Order:
        """Read the node of generations, which begins with the latest number."""
        return cls(int(data.split()[0]), 0)

    @classmethod
    def of_respawns(cls, data: bytes) -> Order:
        """Read a role's node of respawns: the life last ordered, or empty before the first."""
        return cls(*Life.parse(data.decode())[1:]) if data else cls(0, 0)


class OrderLine:
    """Tells a listener the newest of two orders, once both are known, whenever it changes.

    Each node only ever moves on, but an order to respawn may be heard before the generation it
    belongs to, which was published first all the same: the newest of both never goes back. Not
    thread-safe; called where listeners are.

    Parameters
    ----------
    listener
        Called with the generation's number and the respawn count.
    """

    def __init__(self, listener: Callable[[int, int], None]) -> None:
        self._listener = listener
        self._generations: Order | None = None
        self._respawns: Order | None = None
        self._told: Order | None = None

    def hear_generations(self, data: bytes | None) -> None:
        """Take the node of generations; None, for a tree that is gone, changes nothing."""
        if data is not None:
            self._generations = Order.of_generations(data)
            self._tell()

    def hear_respawns(self, data: bytes | None) -> None:
        """Take the role's node of respawns; None, for a tree that is gone, changes nothing."""
        if data is not None:
            self._respawns = Order.of_respawns(data)
            self._tell()

    def _tell(self) -> None:
        if self._generations is None or self._respawns is None:
            return
        newest = max(self._generations, self._respawns)
        if newest != self._told:
            self._told = newest
            self._listener(*newest)
