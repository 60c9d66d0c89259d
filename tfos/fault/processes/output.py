"""Read what a process prints: bounded log file, last lines kept, the rest forwarded under a rate.

However much a process prints, it never waits long for its reader, never fills the disk and never
floods the host's own output.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tfos.fault.processes.bounded_log import BoundedLog

__all__ = ["OutputLimits", "OutputReader", "TokenBucket"]

_logger = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1 << 16
_LONGEST_LINE_BYTES: Final = 1 << 16
_QUIET_MS: Final = 1000


@dataclass(frozen=True)
class OutputLimits:
    """How much of a process's output is kept and forwarded.

    Parameters
    ----------
    head_bytes, tail_bytes
        The bounds of the log file's beginning and of its end: see `BoundedLog`.
    last_lines
        Lines kept in memory for failure records.
    line_chars
        Longer lines are cut to this many characters, in memory and forwarded; not in the log.
    burst_bytes, rate_bytes_s
        Forwarding: so much at once, then so much a second.
    """

    head_bytes: int = 1 << 20
    tail_bytes: int = 15 << 20
    last_lines: int = 50
    line_chars: int = 2000
    burst_bytes: int = 1 << 20
    rate_bytes_s: float = float(64 << 10)


class TokenBucket:
    """Allow `burst_bytes` at once and `rate_bytes_s` a second after that.

    Once empty it stays shut until a second's worth is there, so that a flood becomes a few
    readable stretches instead of single lines between notices.
    """

    def __init__(
        self, burst_bytes: int, rate_bytes_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = float(burst_bytes)
        self._rate = rate_bytes_s
        self._clock = clock
        self._tokens = self._burst
        self._filled_at = clock()
        self._shut = False

    def take(self, size_bytes: int) -> bool:
        """Return whether `size_bytes` may pass now, and count them if so."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        needed = max(size_bytes, min(self._rate, self._burst)) if self._shut else size_bytes
        self._shut = self._tokens < needed
        if self._shut:
            return False
        self._tokens -= size_bytes
        return True


class OutputReader:
    """Drain one process's output until its end.

    Parameters
    ----------
    name
        Who prints: forwarded lines begin with ``[name] ``.
    log
        Gets every byte; closed at the end.
    sink
        Called with each forwarded line, without its line end, from the thread in `run`. It should
        not block: a process that prints waits for it. If it raises, forwarding ends with a warning.
    limits
        See `OutputLimits`.
    clock
        `time.monotonic`, or a test's.
    """

    def __init__(
        self,
        name: str,
        log: BoundedLog,
        sink: Callable[[str], None],
        limits: OutputLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = OutputLimits() if limits is None else limits
        self._name = name
        self._log: BoundedLog | None = log
        self._log_path = log.path
        self._sink: Callable[[str], None] | None = sink
        self._line_chars = limits.line_chars
        self._bucket = TokenBucket(limits.burst_bytes, limits.rate_bytes_s, clock)
        self._lock = threading.Lock()
        self._last: deque[str] = deque(maxlen=limits.last_lines)
        self._last_count = limits.last_lines
        self._partial = b""
        self._left_out = 0

    @property
    def last_lines(self) -> Sequence[str]:
        """The last lines read so far, oldest first. Any thread may ask."""
        with self._lock:
            return tuple(self._last)

    def run(self, output_fd: int, stop_fd: int) -> None:
        """Read until the end of `output_fd`, or until `stop_fd` reaches its end; close both.

        The second end is for output held open by a process that escaped its group. Blocks: call
        it in a thread of its own.
        """
        poller = select.poll()
        poller.register(output_fd, select.POLLIN)
        poller.register(stop_fd, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poller.poll(_QUIET_MS if self._left_out else None)}
                if stop_fd in ready:
                    break
                if not ready:
                    self._announce_left_out()
                    continue
                chunk = os.read(output_fd, _CHUNK_BYTES)
                if not chunk:
                    break
                self.feed(chunk)
        finally:
            os.close(output_fd)
            os.close(stop_fd)
            self.finish()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of output."""
        self._write_log(chunk)
        lines = (self._partial + chunk).split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > _LONGEST_LINE_BYTES:
            lines.append(self._partial)
            self._partial = b""
        self._take(lines)

    def finish(self) -> None:
        """Take what is left without a line end, and close the log. Once, after the last `feed`."""
        if self._partial:
            self._take([self._partial])
            self._partial = b""
        self._announce_left_out()
        log, self._log = self._log, None
        if log is not None:
            try:
                log.close()
            except OSError as error:
                _logger.warning("log of %s, %s, is incomplete: %s", self._name, log.path, error)

    def _write_log(self, chunk: bytes) -> None:
        if self._log is None:
            return
        try:
            self._log.write(chunk)
        except OSError as error:
            # The disk may be full; the process must go on printing without us.
            _logger.warning(
                "log of %s, %s, ends here: %s; its output is still forwarded",
                self._name,
                self._log_path,
                error,
            )
            self._log.abandon()
            self._log = None

    def _take(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        kept = [self._text(line) for line in lines[-self._last_count :]]
        with self._lock:
            self._last.extend(kept)
        for index, line in enumerate(lines):
            if not self._bucket.take(min(len(line), self._line_chars) + 1):
                self._left_out += len(lines) - index
                return
            self._announce_left_out()
            self._forward(self._text(line))

    def _text(self, line: bytes) -> str:
        # What a terminal would show of a progress bar: the text after the last carriage return.
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
        text = line[: 4 * self._line_chars + 4].decode("utf-8", "replace")
        if len(text) <= self._line_chars:
            return text
        return f"{text[: self._line_chars]}... ({len(line)} bytes)"

    def _announce_left_out(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self._forward(f"... {count} lines left out here, see {self._log_path}")

    def _forward(self, text: str) -> None:
        if self._sink is None:
            return
        try:
            self._sink(f"[{self._name}] {text}")
        except Exception:
            _logger.warning(
                "output of %s is no longer forwarded, see %s",
                self._name,
                self._log_path,
                exc_info=True,
            )
            self._sink = None
