"""How training proceeds: one line every few seconds on the driver's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

from tfos.progress import Aim, RoleProgress
from tfos.topology import TaskKey

__all__ = ["Lines", "ProgressLine", "epoch_of", "share_done", "time_left"]

log = logging.getLogger(__name__)

EVERY_S = 5.0
_ETA_AFTER_S = 5.0


class _Progress(Protocol):
    def progress(self) -> Mapping[TaskKey, RoleProgress]: ...


class ProgressLine:
    """Shows the roles' progress, at most every `EVERY_S` seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 1.0
        self._shown_step = -1
        self._lines = Lines()

    def show(self, told: _Progress) -> None:
        """Log a line if it is time and there is news; blocks for one read of the progress."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        progress = told.progress()
        step = max((each.progress.step for each in progress.values()), default=-1)
        if step == self._shown_step or step < 0:
            return
        self._shown_step = step
        log.info("%s", self._lines.line(progress, now, time.time()))


class Lines:
    """Makes a line of the roles' progress and of what it was before. Pure: given the times."""

    def __init__(self) -> None:
        self._seen: dict[TaskKey, tuple[float, int]] = {}
        self._share_began: tuple[float, float] | None = None
        self._share = 0.0

    def line(self, progress: Mapping[TaskKey, RoleProgress], now: float, wall: float) -> str:
        """Return the line for `progress`, read at the monotonic instant `now` and at `wall`."""
        lead = progress[max(progress, key=lambda key: progress[key].progress.step)].progress
        rate = sum(self._rate(key, each, now, wall) for key, each in progress.items())
        metrics = [f"{k} {v:.4g}" for k, v in sorted(lead.metrics.items())]
        parts = [f"step {lead.step:,}", epoch_of(progress), f"{rate:,.0f} rows/s", *metrics]
        return "  ".join(part for part in (*parts, self._eta(share_done(progress), now)) if part)

    def _rate(self, key: TaskKey, role: RoleProgress, now: float, wall: float) -> float:
        """Return rows a second since the last line; at first since the first step."""
        rows, since = role.progress.rows, role.stepping_since
        first = (now - max(wall - since, 0.0) if since is not None else now, 0)
        before, rows_before = self._seen.get(key, first)
        self._seen[key] = (now, rows)
        # A restarted process counts from its checkpoint again.
        return max(rows - rows_before, 0) / (now - before) if now > before else 0.0

    def _eta(self, share: float | None, now: float) -> str:
        if share is None:
            return ""
        if self._share_began is None or share < self._share:
            # The first line, or training that went back to a checkpoint.
            self._share_began = (now, share)
        self._share = share
        began, share_then = self._share_began
        if share <= share_then or now - began < _ETA_AFTER_S:
            return ""
        return time_left((1.0 - share) * (now - began) / (share - share_then))


def share_done(progress: Mapping[TaskKey, RoleProgress]) -> float | None:
    """Return how much of the training is done, 0 to 1; None where its end is not known.

    The end is the epochs or the steps that `TrainContext.fit` was given, whichever comes first;
    epochs have a known length once Spark has fed every row of ``train``.
    """
    shares = []
    aim = _aim(progress)
    if aim.max_steps:
        step = max(each.progress.step for each in progress.values())
        shares.append(step / aim.max_steps)
    read = [each for each in progress.values() if each.read is not None]
    fed = [(each.fed, each.read) for each in read if each.fed and each.read]
    if aim.epochs and fed and all(each.fed is not None for each in read):
        done = sum(read.epoch * length + read.row for length, read in fed)
        shares.append(done / (sum(length for length, _ in fed) * aim.epochs))
    return min(max(shares), 1.0) if shares else None


def epoch_of(progress: Mapping[TaskKey, RoleProgress]) -> str:
    """Return which of several epochs is under way, such as "epoch 3/20"; empty where unknown."""
    epochs = _aim(progress).epochs
    read = [each.read.epoch for each in progress.values() if each.read is not None]
    if not epochs or epochs == 1 or not read:
        return ""
    return f"epoch {min(min(read) + 1, epochs)}/{epochs}"


def time_left(seconds: float) -> str:
    """Return about how long training will go on, in words."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s left"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min left"
    return f"about {minutes // 60} h {minutes % 60} min left"


def _aim(progress: Mapping[TaskKey, RoleProgress]) -> Aim:
    return next((each.aim for each in progress.values() if each.aim is not None), Aim())
