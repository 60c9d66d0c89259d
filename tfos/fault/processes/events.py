"""Say what a supervised process can tell its host, and hand it over in order, bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ControlMessage", "Exited", "Mailbox", "ProcessEvent"]

_MAILBOX_MESSAGES: Final = 256


@dataclass(frozen=True)
class ControlMessage:
    """A message from the training process: one JSON object."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Exited:
    """The training process has ended, its group is gone and its output is read to the end.

    Parameters
    ----------
    pid
        The process it was.
    returncode
        As `subprocess` gives it: the exit code, or minus the signal's number.
    time
        When it ended, seconds since the epoch.
    last_lines
        The last lines it wrote, standard error included, oldest first.
    """

    pid: int
    returncode: int
    time: float
    last_lines: Sequence[str] = ()


ProcessEvent = ControlMessage | Exited


class Mailbox:
    """Hold the events of one process until its host takes them. Thread-safe.

    Messages wait for room when `capacity` of them are held, which in turn makes the sender wait:
    a host that does not look must not run out of memory. Once the sender is dead, what it left in
    the socket is little, and all of it has room; so has the exit.
    """

    def __init__(self, capacity: int = _MAILBOX_MESSAGES) -> None:
        self._capacity = capacity
        self._events: deque[ProcessEvent] = deque()
        self._changed = threading.Condition()
        self._unbounded = False
        self._ended = False

    def put_message(self, message: ControlMessage) -> bool:
        """Add a message; blocks while full; False if `put_exit` came first."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._unbounded or len(self._events) < self._capacity
            )
            if self._ended:
                return False
            self._events.append(message)
            self._changed.notify_all()
            return True

    def put_exit(self, exited: Exited) -> None:
        """Add the last event. Does not block."""
        with self._changed:
            self._ended = True
            self._events.append(exited)
            self._changed.notify_all()

    def lift_bound(self) -> None:
        """Let every further message in at once. Idempotent."""
        with self._changed:
            self._unbounded = True
            self._changed.notify_all()

    def take(self, timeout_s: float) -> ProcessEvent | None:
        """Return the oldest event, waiting up to `timeout_s` seconds for one; None without."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._events), timeout_s):
                return None
            event = self._events.popleft()
            self._changed.notify_all()
            return event
