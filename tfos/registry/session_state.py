"""Follow one registry session from connected to lost: its state, who is told, who has to wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from tfos.errors import RendezvousConnectionError, SessionLostError
from tfos.registry.contract import Connection, Subscription
from tfos.registry.delivery import Delivery

__all__ = ["SessionState"]

_LOG = logging.getLogger(__name__)


class SessionState:
    """A session's `Connection`, once it has one. Thread-safe.

    LOST is final: nothing said afterwards changes it. SUSPENDED turns into LOST by itself after
    `timeout_s`, for a server that stays silent never says that the session expired.

    Parameters
    ----------
    server
        The server, for messages.
    timeout_s
        The session time-out.
    delivery
        Where listeners are called.
    """

    def __init__(self, server: str, timeout_s: float, delivery: Delivery) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._delivery = delivery
        self._changed = threading.Condition()
        self._state: Connection | None = None
        self._lost_because = ""
        self._closed = False
        self._silence: threading.Timer | None = None
        self._listeners: dict[object, Callable[[Connection], None]] = {}
        self._at_end: dict[object, Callable[[], None]] = {}

    def enter(self, state: Connection, because: str = "") -> bool:
        """Go to a state and tell it; return False when closed, lost or there already."""
        with self._changed:
            if self._closed or self._state in (Connection.LOST, state):
                return False
            self._stop_clock()
            self._state, self._lost_because = state, because
            if state is Connection.SUSPENDED:
                why = f"no server answered for {self._timeout_s:g} s"
                self._silence = threading.Timer(self._timeout_s, self.enter, (Connection.LOST, why))
                self._silence.daemon = True
                self._silence.start()
            self._changed.notify_all()
            for token in self._listeners:
                self._delivery.post(self._tell, token, state)
            calls = list(self._at_end.values()) if state is Connection.LOST else []
        if state is Connection.LOST:
            _LOG.warning("The session with %s is lost: %s", self._server, because)
        for call in calls:
            call()
        return True

    def close(self) -> None:
        """End it by this process's own wish: listeners are not told. Idempotent."""
        with self._changed:
            self._closed = True
            self._stop_clock()
            self._changed.notify_all()
            calls = list(self._at_end.values())
        for call in calls:
            call()

    def _stop_clock(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def await_first(self, timeout_s: float) -> bool:
        """Block until the first connection, at most `timeout_s`; return whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state is not None, timeout_s)

    def await_lost(self, timeout_s: float) -> bool:
        """Block until the session is lost, at most `timeout_s`; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state is Connection.LOST, timeout_s)

    def await_connected(self, doing: str, deadline: float) -> None:
        """Block until connected, at most until `deadline`.

        Raises
        ------
        SessionLostError
            Once the session is lost.
        RendezvousConnectionError
            At the deadline, or once closed.
        """
        with self._changed:
            while True:
                self.check_usable(doing)
                if self._state is Connection.CONNECTED:
                    return
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise self.silent(doing)
                self._changed.wait(remaining_s)

    def check_usable(self, doing: str) -> None:
        """Raise what `await_connected` does when lost or closed; never block."""
        if self._closed:
            raise RendezvousConnectionError(f"{doing}: this registry is closed")
        if self._state is Connection.LOST:
            raise SessionLostError(
                f"{doing}: the session with {self._server} is lost ({self._lost_because}); this "
                "process's membership is gone"
            )

    def silent(self, doing: str) -> RendezvousConnectionError:
        """Return the error of a call left without an answer."""
        return RendezvousConnectionError(
            f"{doing}: {self._server} did not answer in time; check that it runs and is not "
            "overloaded (--zookeeper), or raise registry.session_timeout_s"
        )

    def watch(self, listener: Callable[[Connection], None]) -> Subscription:
        """Call `listener` with the state now and after every change."""
        token = object()
        with self._changed:
            self._listeners[token] = listener
            self._delivery.post(self._tell, token, self._state)
        return self._subscription(self._listeners, token)

    def at_end(self, call: Callable[[], None]) -> Subscription:
        """Call `call` at once when the session is lost or closed, in whatever thread ends it."""
        token = object()
        with self._changed:
            self._at_end[token] = call
            ended = self._closed or self._state is Connection.LOST
        if ended:
            call()
        return self._subscription(self._at_end, token)

    def _subscription(self, told: dict[object, Any], token: object) -> Subscription:
        def unsubscribe() -> None:
            with self._changed:
                told.pop(token, None)

        return unsubscribe

    def _tell(self, token: object, state: Connection) -> None:
        with self._changed:
            listener = self._listeners.get(token)
        if listener is not None:
            listener(state)
