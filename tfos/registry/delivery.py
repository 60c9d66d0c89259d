"""Call a registry's listeners from one thread, one at a time, in the order of events."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Delivery"]

_LOG = logging.getLogger(__name__)
_CLOSE_BOUND_S: Final = 2.0


class Delivery:
    """A queue of calls and the daemon thread that makes them. Thread-safe.

    The thread starts with the first call posted, so that a registry without listeners has none.
    A listener that raises is logged and does not end the thread.

    Parameters
    ----------
    name
        The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def post(self, listener: Callable[..., None], *args: Any) -> None:
        """Have `listener` called with `args`, after all posted before. Does not block."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._calls.put(lambda: listener(*args))

    def close(self) -> None:
        """End the thread once the calls already posted are made. Idempotent.

        Waits at most 2 s for it, and not at all when called by a listener.
        """
        with self._lock:
            thread, first = self._thread, not self._closed
            self._closed = True
        if thread is None:
            return
        if first:
            self._calls.put(None)
        if thread is not threading.current_thread():
            thread.join(_CLOSE_BOUND_S)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                _LOG.exception("A registry listener failed; the events after this one still come")
