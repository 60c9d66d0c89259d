"""A `Progress` that keeps what it is told."""

from __future__ import annotations

from tfos.environments.progress import Progress

__all__ = ["Telling"]


class Telling:
    """Keeps the lines and percentages that its `progress` is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.percents: list[int] = []
        self.progress = Progress(self.lines.append, self.percents.append)
