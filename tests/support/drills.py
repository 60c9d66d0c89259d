"""What tests share that run jobs for real."""

from __future__ import annotations

import psutil
import pytest

__all__ = ["TRAINING", "command_line", "longest_run_s"]

TRAINING = "tfos.launcher.training.main"
"""Among the words of every training process."""

_FOR_CLEANING_UP_S = 10.0


def longest_run_s(request: pytest.FixtureRequest) -> float:
    """Return how long a run may take: its test is to say so before its own time is up."""
    timeout = request.node.get_closest_marker("timeout")
    own_s = timeout.args[0] if timeout else request.config.getini("timeout")
    return float(own_s) - _FOR_CLEANING_UP_S


def command_line(process: psutil.Process) -> list[str]:
    """Return the words a process was started by; none of one that has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
