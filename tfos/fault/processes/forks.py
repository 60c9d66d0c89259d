"""Keep the signal handlers of a process from what it forks, such as the processes of a pool."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable

__all__ = ["in_forked_children"]


def in_forked_children(restore: Callable[[], object], signals: Iterable[signal.Signals]) -> None:
    """Have every forked child of this process set its signal handlers before a signal is handled.

    A pool that ends as it begins sends SIGTERM to a child within its first moments: a handler of
    the parent's that ran there would raise, or note the signal for the parent, and the child would
    live on while the pool waits for its end. So the signals are blocked across every fork. Lasts as
    long as the process.

    Parameters
    ----------
    restore
        Called in the child; sets the handlers that it is to have.
    signals
        Those that `restore` is about.
    """
    blocked, before = frozenset(signals), threading.local()

    def block() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def begin_child() -> None:
        restore()
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=begin_child)
