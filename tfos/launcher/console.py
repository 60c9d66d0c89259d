"""Show what tfos says of a run on the terminal, alike from client and driver."""

from __future__ import annotations

import logging

__all__ = ["show_log"]


def show_log(level: str) -> None:
    """Write tfos's log from `level` on to standard error, each line with its time."""
    logging.basicConfig(format="%(asctime)s tfos: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("tfos").setLevel(level.upper())
