"""Which run holds what only one may have: what it writes there, and how others read that."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import datetime, timezone

from tfos.account import user_name

__all__ = ["describe_holder", "holder_here"]

_FIELDS = ("run_id", "host", "pid", "user", "started")
_LONGEST = 100


def holder_here(run_id: str) -> dict[str, str]:
    """Return the holder that this process is, for a run that starts now."""
    return {
        "run_id": run_id,
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "user": user_name(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def describe_holder(holder: Mapping[str, object]) -> str:
    """Describe a holder in a line; anyone could have written it, so that nothing is relied on."""
    texts = (str(holder.get(name, "")) for name in _FIELDS)
    run_id, host, pid, user, started = (
        text[:_LONGEST] if text and text.isprintable() else "unknown" for text in texts
    )
    return f"run {run_id}, on {host}, pid {pid}, of user {user}, since {started}"
