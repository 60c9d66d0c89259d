"""Keep one node's value flowing to listeners: read, watch, read again after each event."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from tfos.registry.contract import Subscription
from tfos.registry.delivery import Delivery

__all__ = ["NodeWatch", "UnreadError"]

_LOG = logging.getLogger(__name__)
_PAUSE_S: Final = 0.05
T = TypeVar("T")


class UnreadError(Exception):
    """The link dropped before a read was answered; the watch is read again when it is back."""


class NodeWatch(Generic[T]):
    """One node, watched for any number of listeners. Thread-safe; never blocks.

    ZooKeeper's watches fire once, and are gone with the connection. So every event, and every
    reconnect (`refresh`), reads the node again and sets the watch anew; listeners get each value
    read, which after a reconnect may equal the one before. With no listener left, reading ends.

    A change after a quiet time is read at once; changes that come in a burst, as when a thousand
    hosts register, are read together, `_PAUSE_S` apart, for each read costs as much as the list is
    long.

    Several threads read: those that subscribe, kazoo's, and the timers after a burst. So reads are
    numbered as they are submitted, the order in which the server answers them, and a value that
    comes after one read later is dropped: what listeners are told never goes back.

    Parameters
    ----------
    read
        Starts a read that calls its argument at the node's next change; returns the pending result.
    decode
        Takes the value out of a finished result; raises `UnreadError` when the link dropped.
    delivery
        Where listeners are called.
    """

    def __init__(
        self,
        read: Callable[[Callable[[Any], None]], Any],
        decode: Callable[[Any], T],
        delivery: Delivery,
    ) -> None:
        self._read = read
        self._decode = decode
        self._delivery = delivery
        self._lock = threading.Lock()
        self._listeners: dict[object, Callable[[T], None]] = {}
        # The last value read; empty while none is known.
        self._latest: list[T] = []
        self._submitted = 0
        self._heard = 0
        self._quiet_until = 0.0

    def subscribe(self, listener: Callable[[T], None]) -> Subscription:
        """Call `listener` with the node's value now and after every change."""
        token = object()
        with self._lock:
            first = not self._listeners
            self._listeners[token] = listener
            if self._latest:
                self._delivery.post(self._deliver, token, self._latest[0])
        if first:
            self.refresh()

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.pop(token, None)
                if not self._listeners:
                    # Unheard changes follow, so what is known now must not be told to the next one.
                    self._latest.clear()

        return unsubscribe

    def refresh(self) -> None:
        """Read the node again, if anyone listens."""
        with self._lock:
            if not self._listeners:
                return
            self._submitted += 1
            on_read = functools.partial(self._on_read, self._submitted)
            pending = self._read(self._on_event)
        pending.rawlink(on_read)

    def _on_event(self, event: Any) -> None:
        # "NONE" says the connection dropped; a reconnect refreshes every watch.
        if event.type == "NONE":
            return
        wait_s = self._quiet_until - time.monotonic()
        if wait_s <= 0:
            self.refresh()
            return
        later = threading.Timer(wait_s, self.refresh)
        later.daemon = True
        later.start()

    def _on_read(self, number: int, result: Any) -> None:
        try:
            value = self._decode(result)
        except UnreadError as error:
            _LOG.debug("A watch will be read again after the reconnect: %s", error.__cause__)
            return
        with self._lock:
            if not self._listeners or number < self._heard:
                return
            self._heard = number
            self._latest[:] = [value]
            self._quiet_until = time.monotonic() + _PAUSE_S
            for token in self._listeners:
                self._delivery.post(self._deliver, token, value)

    def _deliver(self, token: object, value: T) -> None:
        with self._lock:
            listener = self._listeners.get(token)
        if listener is not None:
            listener(value)
