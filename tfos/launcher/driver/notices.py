"""Lines that a training process has for the run's log: passed on by its role host, shown once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tfos.topology import TaskKey

__all__ = ["KEPT", "NoticeLog", "notice"]

log = logging.getLogger("tfos")

KEPT: Final = 8
"""How many of a role's latest notices travel with its progress."""
_MAX_CHARS: Final = 4000


def notice(text: str, level: str, at: float) -> dict[str, Any]:
    """Return a notice as JSON: one line, its level (``info`` or ``warning``), and when it came."""
    return {"text": " ".join(text.split())[:_MAX_CHARS], "level": level, "at": at}


class NoticeLog:
    """Writes every role's notices to the driver's log, each once; in the controller's thread."""

    def __init__(self) -> None:
        self._shown: dict[TaskKey, float] = {}

    def show(self, key: TaskKey, notices: Sequence[Mapping[str, Any]]) -> None:
        """Log the notices of a role that came after the last one shown."""
        for each in notices:
            if each["at"] > self._shown.get(key, 0.0):
                self._shown[key] = each["at"]
                level = logging.WARNING if each["level"] == "warning" else logging.INFO
                log.log(level, "%s", each["text"])
