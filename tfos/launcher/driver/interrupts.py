"""The signals that ask the driver to end, handed to the part of it that can act on them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from tfos.errors import InterruptedRunError, RunTimeoutError, TfosError
from tfos.fault.processes.forks import in_forked_children

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """SIGINT, SIGTERM, SIGHUP and the run's own time limit, for the length of a ``with`` block.

    While `sink` is set, signals go there (the controller ends the run in order). Before and after,
    they raise in the main thread, which gets user code and Spark calls out of their waits.
    Only the main thread may enter the block.

    Parameters
    ----------
    timeout_s
        Seconds after which `RunTimeoutError` is raised while there is no `sink`; None for never.
        With a sink the controller keeps the time itself.
    begun
        When the time began, in seconds since the epoch, by the clock of whichever host submitted.
    """

    def __init__(self, timeout_s: float | None, begun: float) -> None:
        self._timeout_s = timeout_s
        self._begun = begun
        self._previous: dict[signal.Signals, Any] = {}
        self._raised: TfosError | None = None
        self.sink: Callable[[str, str], None] | None = None

    def __enter__(self) -> Interrupts:
        in_forked_children(self._give_back, [*_SIGNALS, signal.SIGALRM])
        try:
            self.install()
            if self._timeout_s is not None:
                self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
                # Zero would be no timer.
                left_s = max(self._timeout_s - self.spent_s, 0.001)
                signal.setitimer(signal.ITIMER_REAL, left_s)
            return self
        except BaseException:
            # A signal or the alarm came already: `__exit__` is not called.
            self._restore()
            raise

    @property
    def spent_s(self) -> float:
        """How much of the time is gone."""
        return max(time.time() - self._begun, 0.0)

    def _give_back(self) -> None:
        """Set the handlers of before; called in forked children too, such as a pool's."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Set the handlers; again after SparkContext has set one of its own for SIGINT."""
        for number in _SIGNALS:
            before = signal.signal(number, self._on_signal)
            self._previous.setdefault(number, before)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        # A call into the JVM that the signal ended reports an error of its own instead.
        if error is not None and self._raised is not None and error is not self._raised:
            raise self._raised from error

    def _restore(self) -> None:
        if self._timeout_s is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        self._give_back()

    def _raise(self, error: TfosError) -> NoReturn:
        self._raised = error
        raise error

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.sink is not None:
            self.sink(name, f"{name} received")
            return
        self._raise(InterruptedRunError(f"interrupted by {name}", signal_name=name))

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if self.sink is None:
            self._raise(
                RunTimeoutError(
                    f"the run did not end within --timeout {self._timeout_s:g} s: it was still "
                    "preparing the data; raise --timeout",
                    timeout_s=self._timeout_s,
                )
            )
