"""Keep the reports of a job's runs beside its checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tfos.fault.checkpoints.commit import remove_or_warn
from tfos.fault.checkpoints.storage import REPORTS_NAME, CheckpointStorage

__all__ = ["keep_report"]

_KEPT: Final = 20
_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def keep_report(storage: CheckpointStorage, run_id: str, report: Mapping[str, Any]) -> str:
    """Write a run's report; see `CheckpointStore.write_report`."""
    if _RUN_ID.fullmatch(run_id) is None:
        raise ValueError(f"run id {run_id!r} cannot name a report")
    file = f"{run_id}.json"
    content = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    storage.write(REPORTS_NAME, file, content.encode())
    # Run ids begin with the time, so the lowest are the oldest.
    others = sorted(name for name in storage.sizes(REPORTS_NAME) if name != file)
    old = others[: max(len(others) - (_KEPT - 1), 0)]
    remove_or_warn(storage, [f"{REPORTS_NAME}/{name}" for name in old])
    return storage.path(f"{REPORTS_NAME}/{file}")
