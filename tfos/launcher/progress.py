"""Show how training proceeds: one line every few seconds on the driver's log."""

from __future__ import annotations

import logging
import time
from typing import Any

from tfos.launcher.registry_events import RegistryReader
from tfos.topology import TaskKey

__all__ = ["ProgressLine"]

log = logging.getLogger(__name__)

EVERY_S = 5.0


class ProgressLine:
    """Reads the roles' progress from the registry, at most every `EVERY_S` seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 1.0
        self._seen: dict[TaskKey, tuple[float, int]] = {}
        self._shown_step = -1

    def show(self, told: RegistryReader) -> None:
        """Log a line if it is time and there is news; blocks for one registry read."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        progress = told.progress()
        if not progress:
            return
        lead = max(progress, key=lambda key: int(progress[key]["step"]))
        step = int(progress[lead]["step"])
        if step == self._shown_step or step < 0:
            return
        self._shown_step = step
        rate = sum(self._rate(key, document, now) for key, document in progress.items())
        metrics = "  ".join(f"{k} {v:.4g}" for k, v in sorted(progress[lead]["metrics"].items()))
        log.info("step %s  %s rows/s  %s", f"{step:,}", f"{rate:,.0f}", metrics)

    def _rate(self, key: TaskKey, document: dict[str, Any], now: float) -> float:
        rows = int(document["rows"])
        before, rows_before = self._seen.get(key, (now, rows))
        self._seen[key] = (now, rows)
        # A restarted process counts from its checkpoint again.
        return max(rows - rows_before, 0) / (now - before) if now > before else 0.0
