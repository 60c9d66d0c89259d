"""What is shown while YARN has an application and does not run it yet. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["EVERY_S", "YarnWait"]

EVERY_S: Final = 20.0


class YarnWait:
    """Says every `EVERY_S` seconds what is waited for.

    Parameters
    ----------
    unpacks
        Whether the containers' hosts unpack an environment.
    now
        When the wait began, an instant of the clock that `words` is given.
    """

    def __init__(self, unpacks: bool, now: float) -> None:
        self._unpacks = unpacks
        self._began = now
        self._next = now + EVERY_S

    def words(self, now: float) -> str | None:
        """Return what to show at `now`; None while it is not time."""
        if now < self._next:
            return None
        self._next = now + EVERY_S
        what = "YARN has accepted the application; it waits for a container"
        if self._unpacks:
            what += " whose host unpacks the environment, which takes minutes the first time"
        return f"{what}: {now - self._began:.0f} s so far"
