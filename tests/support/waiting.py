"""Wait for what other processes and threads do, never longer than a deadline."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["meanwhile", "wait_for"]

T = TypeVar("T")


def wait_for(
    look: Callable[[], T],
    within_s: float = 30.0,
    *,
    poll_s: float = 0.02,
    not_yet: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Look until there is something; return it.

    Parameters
    ----------
    look
        Returns something true once it is there; called from this thread.
    within_s
        Longest wait, in seconds. However late this process is woken, it looks once more after it.
    poll_s
        Time between two looks, in seconds: longer where a look is costly.
    not_yet
        Errors of `look` that mean that nothing is there yet. Any other ends the wait.

    Raises
    ------
    AssertionError
        If nothing is there in time; shows the source of `look` and what came of it last.
    """
    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() >= deadline
        try:
            if found := look():
                return found
            last = repr(found)
        except not_yet as error:
            last = repr(error)
        if late:
            raise AssertionError(f"waited {within_s:g} s in vain, last {last}: {_source(look)}")
        time.sleep(poll_s)


def _source(look: Callable[[], object]) -> str:
    # `inspect` follows functools.wraps; a bound method tells more by what it is bound to.
    return " ".join(inspect.getsource(look).split()) if inspect.isfunction(look) else repr(look)


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread beside the block; if it raises, so does the end of the block."""
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(action)
        yield
        done.result()
