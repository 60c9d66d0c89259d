"""Whether the ranks have exchanged anything: a count of the collectives that a program asks for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Collectives"]

_EXCHANGES = (
    "horovod_allreduce",
    "horovod_grouped_allreduce",
    "horovod_allgather",
    "horovod_grouped_allgather",
    "horovod_alltoall",
    "horovod_reducescatter",
    "horovod_grouped_reducescatter",
)
"""Operations by which every rank's values reach others. A broadcast is none: it makes ranks start
alike, after which each may still train a model of its own."""


class Collectives:
    """Count the exchanges asked for in this process: called, or traced into a function.

    Parameters
    ----------
    library
        Horovod's module of operations; its functions are replaced by counting ones.
    """

    def __init__(self, library: Any) -> None:
        self.exchanges = 0
        self._counting = True
        for name in _EXCHANGES:
            if hasattr(library, name):
                setattr(library, name, self._counted(getattr(library, name)))

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Return a context whose exchanges are tfos's own and say nothing of the program."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operation)
        def call(*args: Any, **options: Any) -> Any:
            self.exchanges += self._counting
            return operation(*args, **options)

        return call
