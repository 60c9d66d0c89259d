"""Show what tfos says of a run on the terminal, alike from client and driver."""

from __future__ import annotations

import logging

from tfos.terminal import TerminalFormatter

__all__ = ["show_log"]


def show_log(level: str) -> None:
    """Write tfos's log from `level` on to standard error, each line with its time."""
    handler = logging.StreamHandler()
    handler.setFormatter(TerminalFormatter("%(asctime)s tfos: %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("tfos").setLevel(level.upper())
