"""Say why the driver gives a run up: each reason as the event that ends it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from dataclasses import replace

from tfos.config import JobConfig
from tfos.fault.failures.record import Cause, Failure
from tfos.launcher.driver.events import Halted, Phase, Verdict
from tfos.topology import TaskKey, describe_keys

__all__ = [
    "gave_up",
    "interrupted",
    "left_early",
    "not_registered",
    "registry_lost",
    "timed_out",
]


def registry_lost(config: JobConfig) -> Halted:
    """Give up: ZooKeeper has been silent for the session's time-out."""
    where = config.registry.zookeeper or "embedded"
    failure = _failure(
        Cause.INFRASTRUCTURE,
        f"ZooKeeper ({where}) was lost: it has not answered for "
        f"{config.registry.session_timeout_s:g} s",
        "without it no role can be watched; look at its log, or raise "
        "registry.session_timeout_s if it only pauses",
    )
    return Halted(Verdict.FAILED, failure)


def interrupted(signal_name: str, why: str) -> Halted:
    """Give up: somebody asked for the end."""
    failure = _failure(Cause.INTERRUPTED, f"interrupted by {signal_name}: {why}", "")
    return Halted(Verdict.INTERRUPTED, replace(failure, signal_name=signal_name))


def gave_up(why: str) -> Halted:
    """Give up: what surrounds the run no longer lets it go on."""
    failure = _failure(Cause.INFRASTRUCTURE, why, "submit it again: it resumes")
    return Halted(Verdict.FAILED, failure)


def timed_out(config: JobConfig, phase: Phase) -> Halted:
    """Give up: ``--timeout`` has passed."""
    failure = _failure(
        Cause.TIMEOUT,
        f"the run did not end within --timeout {config.supervision.timeout_s:g} s "
        f"(it was {phase.value})",
        "raise --timeout, or resume from the checkpoint by submitting again",
    )
    return Halted(Verdict.TIMED_OUT, failure)


def not_registered(config: JobConfig, missing: Iterable[TaskKey], why: str) -> Halted:
    """Give up: roles have not registered in time; `why` says what may keep them."""
    failure = _failure(
        Cause.INFRASTRUCTURE,
        f"{describe_keys(missing)} did not register within "
        f"{config.registry.register_timeout_s:g} s",
        why,
    )
    return Halted(Verdict.FAILED, failure)


def left_early(keys: Iterable[TaskKey]) -> Failure:
    """Describe role hosts that ended, neither done nor failed, while training went on."""
    return _failure(
        Cause.INFRASTRUCTURE,
        f"{describe_keys(keys)} left before training was over",
        "its role host's log, in Spark's log of its executor, says why",
    )


def _failure(cause: Cause, message: str, hint: str) -> Failure:
    return Failure(
        key="driver",
        cause=cause,
        message=message,
        time=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        hint=hint,
    )
