"""The roles' notices in the driver's log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tfos.progress import Notice
from tfos.topology import TaskKey

__all__ = ["NoticeLog"]

log = logging.getLogger("tfos")


class NoticeLog:
    """Writes every role's notices to the driver's log, each once; in the controller's thread."""

    def __init__(self) -> None:
        self._shown: dict[TaskKey, float] = {}

    def show(self, key: TaskKey, notices: Sequence[Notice]) -> None:
        """Log the notices of a role that came after the last one shown."""
        for notice in notices:
            if notice.at > self._shown.get(key, 0.0):
                self._shown[key] = notice.at
                level = logging.WARNING if notice.level == "warning" else logging.INFO
                log.log(level, "%s", notice.text)
