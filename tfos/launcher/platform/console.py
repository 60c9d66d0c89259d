"""Show the log of a run, alike on the terminal of `pl_submit` and in a notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tfos.terminal import TerminalFormatter

__all__ = ["log_shown", "show_log"]


def show_log(level: str) -> None:
    """Write tfos's log from `level` on to standard error, each line with its time."""
    logging.basicConfig(handlers=[_to_standard_error()])
    logging.getLogger("tfos").setLevel(level.upper())


@contextmanager
def log_shown(level: str) -> Iterator[None]:
    """Show tfos's log from `level` on inside the block, unless the program decides that itself.

    A program does so by giving the logger ``tfos`` a level or a handler. Where the root logger has
    handlers, they show the log; otherwise it goes to standard error. Afterwards all is as before.
    """
    log = logging.getLogger("tfos")
    if log.level != logging.NOTSET or log.handlers:
        yield
        return
    handlers = [] if log.hasHandlers() else [_to_standard_error()]
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(level.upper())
    try:
        yield
    finally:
        log.setLevel(logging.NOTSET)
        for handler in handlers:
            log.removeHandler(handler)


def _to_standard_error() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(TerminalFormatter("%(asctime)s tfos: %(message)s", datefmt="%H:%M:%S"))
    return handler
