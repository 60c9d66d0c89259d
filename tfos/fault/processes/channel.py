"""Carry small JSON messages both ways between a role host and its training process.

One message is one JSON object on one line, over an inherited socket pair. A peer that does not read
costs a sender a bounded wait, never a hang; garbage costs the message, never the channel.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from tfos.errors import InfrastructureError

__all__ = ["CONTROL_FD_VARIABLE", "MAX_MESSAGE_BYTES", "ControlChannel"]

CONTROL_FD_VARIABLE: Final = "TFOS_CONTROL_FD"
"""Environment variable with the number of the inherited socket."""
MAX_MESSAGE_BYTES: Final = 1 << 20
"""Largest message, its newline included."""

_RECEIVE_BYTES: Final = 1 << 16
_EXCERPT_BYTES: Final = 80


class ControlChannel:
    """One end of the channel.

    Any thread may send; one thread at a time receives. `close` may be called from any thread and
    wakes both.

    Parameters
    ----------
    sock
        A connected stream socket, owned from here on and made non-blocking.
    send_timeout_s
        Longest a `send` waits for a peer that does not read.
    """

    def __init__(self, sock: socket.socket, *, send_timeout_s: float = 10.0) -> None:
        sock.setblocking(False)
        # What this process starts must not hold the channel open.
        sock.set_inheritable(False)
        self._sock = sock
        self._send_timeout_s = send_timeout_s
        self._send_lock = threading.Lock()
        self._unsent = b""
        self._received = bytearray()
        self._scanned = 0
        self._skipping = False

    @classmethod
    def from_environment(
        cls, *, environ: MutableMapping[str, str] | None = None, send_timeout_s: float = 10.0
    ) -> ControlChannel:
        """Open the training process's end; removes its variable from `environ`.

        Parameters
        ----------
        environ
            The process environment by default.
        send_timeout_s
            As for the class.

        Raises
        ------
        InfrastructureError
            If the variable is absent or names no socket: no supervisor started this process.
        """
        environ = os.environ if environ is None else environ
        text = environ.pop(CONTROL_FD_VARIABLE, None)
        try:
            if text is None:
                raise ValueError(f"{CONTROL_FD_VARIABLE} is not set")
            sock = socket.socket(fileno=int(text))
        except (ValueError, OSError) as error:
            raise InfrastructureError(
                f"this process has no control channel ({error}): it was not started by a tfos "
                "supervisor"
            ) from error
        return cls(sock, send_timeout_s=send_timeout_s)

    def send(self, message: Mapping[str, Any], *, droppable: bool = False) -> bool:
        """Send one message.

        Parameters
        ----------
        message
            JSON values only.
        droppable
            Give the message up, instead of waiting, when the peer is behind: for progress, of which
            the next is as good.

        Returns
        -------
        bool
            False if the message was given up, which only a droppable one is.

        Raises
        ------
        TypeError
            If `message` is not JSON.
        InfrastructureError
            If it is larger than `MAX_MESSAGE_BYTES`; if the peer closed its end (droppable or not);
            if it did not read for `send_timeout_s` (the message may still reach it later).
        """
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(data) > MAX_MESSAGE_BYTES:
            raise InfrastructureError(
                f"a control message of {len(data)} bytes ({data[:_EXCERPT_BYTES]!r}...) was not "
                f"sent: {MAX_MESSAGE_BYTES} is the limit"
            )
        deadline = time.monotonic() + (0.0 if droppable else self._send_timeout_s)
        if not self._send_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return self._peer_is_behind(droppable)
        try:
            # What an earlier message left goes first: half a line would spoil the next.
            if not self._flush(deadline):
                return self._peer_is_behind(droppable)
            self._unsent = data
            if self._flush(deadline):
                return True
            if droppable and len(self._unsent) < len(data):
                return True  # begun: the rest goes ahead of the next message
            if droppable:
                self._unsent = b""
            return self._peer_is_behind(droppable)
        finally:
            self._send_lock.release()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Wait up to `timeout_s` seconds for the next message; None when there was none.

        Raises
        ------
        EOFError
            When the peer has closed its end, or this end is closed.
        InfrastructureError
            For one message that is no JSON object or is too large. It is left out; the channel
            goes on, so call again.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._take_line()
            if line is not None:
                return _decode(line)
            if not self._wait(select.POLLIN, deadline):
                return None
            try:
                chunk = self._sock.recv(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise EOFError(f"the control channel broke: {error}") from error
            if not chunk:
                raise EOFError("the other end of the control channel is closed")
            self._received += chunk

    def close(self) -> None:
        """Close this end; a waiting `send` or `receive` ends with its error. Idempotent."""
        # An error means that the peer was first, or that this is the second call.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        # Closing under a sender's feet would let its next write reach another file's descriptor.
        with self._send_lock:
            self._sock.close()

    def _peer_is_behind(self, droppable: bool) -> bool:
        if droppable:
            return False
        raise InfrastructureError(
            f"a control message was not sent: the other end did not read for "
            f"{self._send_timeout_s:g} s"
        )

    def _flush(self, deadline: float) -> bool:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                # Holding the send lock, so `close` has not yet closed the descriptor.
                if not self._wait(select.POLLOUT, deadline):
                    return False
            except OSError as error:
                raise InfrastructureError(
                    f"a control message was not sent: the other end is gone ({error})"
                ) from error
            else:
                self._unsent = self._unsent[sent:]
        return True

    def _wait(self, event: int, deadline: float) -> bool:
        poller = select.poll()
        try:
            poller.register(self._sock, event)
        except ValueError as error:
            raise EOFError("this end of the control channel is closed") from error
        return bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _take_line(self) -> bytes | None:
        end = self._received.find(b"\n", self._scanned)
        too_large = (end if end >= 0 else len(self._received)) >= MAX_MESSAGE_BYTES
        if end < 0:
            self._scanned = len(self._received)
            if self._skipping or too_large:
                # Remembered as a state, not kept: an endless line must not become endless memory.
                self._skipping = True
                self._received.clear()
                self._scanned = 0
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._scanned = 0
        if self._skipping or too_large:
            self._skipping = False
            raise InfrastructureError(
                f"a control message of more than {MAX_MESSAGE_BYTES} bytes was left out"
            )
        return line


def _decode(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError(f"expected a JSON object, found {type(message).__name__}")
    except (ValueError, RecursionError) as error:
        raise InfrastructureError(
            f"a control message was left out: {error} (it begins {line[:_EXCERPT_BYTES]!r})"
        ) from error
    return message
