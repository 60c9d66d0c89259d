"""Judge from its signs whether a training process still lives and gets on. Pure: told the time."""

from __future__ import annotations

__all__ = ["Watchdog"]


class Watchdog:
    """Watches one training process. Times are instants of one monotonic clock, in seconds.

    Slow is not dead: only silence and standstill past their bounds count. A process that never
    reports a step is held to its heartbeat alone, for nobody knows what it should be doing.

    Parameters
    ----------
    heartbeat_timeout_s
        Longest silence of a process.
    stall_timeout_s
        Longest time without a new step, once one was reported.
    connect_timeout_s
        Longest time between `see_connecting` and `see_connected`.
    now
        When it began.
    """

    def __init__(
        self,
        heartbeat_timeout_s: float,
        stall_timeout_s: float,
        connect_timeout_s: float,
        now: float,
    ) -> None:
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connecting_since: float | None = None
        self._heard_at = now
        self._step: int | None = None
        self._advanced_at = now

    def hear(self, now: float) -> None:
        """Note any sign of life."""
        self._heard_at = now

    def see_step(self, step: int, now: float) -> None:
        """Note the step a process reports."""
        self._heard_at = now
        if self._step != step:
            self._step = step
            self._advanced_at = now

    def see_work(self, now: float) -> None:
        """Note work that is no step: an evaluation, a checkpoint, an export."""
        self._heard_at = now
        self._advanced_at = now

    def see_connecting(self, now: float) -> None:
        """Note that the process begins to connect to its peers."""
        self.see_work(now)
        self._connecting_since = now

    def see_connected(self, now: float) -> None:
        """Note that it has reached them."""
        self.see_work(now)
        self._connecting_since = None

    def connects_too_long(self, now: float) -> bool:
        """Whether it has been connecting for longer than allowed."""
        since = self._connecting_since
        return since is not None and now - since > self._connect_timeout_s

    def complaint(self, now: float) -> tuple[str, str] | None:
        """Return what is wrong and what to do about it; None while all is well."""
        silent_s = now - self._heard_at
        if silent_s > self._heartbeat_timeout_s:
            return (
                f"it gave no sign of life for {silent_s:.1f} s",
                "it was stopped, its host is overloaded, or native code holds Python's lock; "
                "raise supervision.heartbeat_timeout_s if it only pauses",
            )
        if self.connects_too_long(now):
            return (
                f"it did not connect to its peers within {self._connect_timeout_s:g} s",
                "raise supervision.connect_timeout_s if the network or the hosts are slow; "
                "otherwise look for firewalls between the hosts: every role has to reach the "
                "others at any port",
            )
        still_s = now - self._advanced_at
        if self._step is not None and still_s > self._stall_timeout_s:
            return (
                f"it made no progress past step {self._step} for {still_s:.1f} s",
                "its threads' stacks show where it waits; raise --stall-timeout if a step, an "
                "evaluation or the wait for rows may take longer",
            )
        return None
