"""Turn a run's last state into its record's fields, and into the error it ends with. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tfos.errors import (
    EmptyDataError,
    InterruptedRunError,
    RunTimeoutError,
    TfosError,
    WorkerFailedError,
)
from tfos.fault.failures.record import Failure, first_cause
from tfos.frameworks.contract import TRAIN
from tfos.launcher.driver.events import Verdict
from tfos.launcher.driver.state import RunState
from tfos.topology import TaskKey

__all__ = ["error_of", "fields_of", "ordered_failures"]

_BY_ITSELF = (Verdict.DONE, Verdict.FAILED)


def fields_of(state: RunState, chief: TaskKey) -> dict[str, Any]:
    """Return the fields of `RunResult` that the roles' outcomes tell."""
    rows: Counter[str] = Counter()
    phases: dict[str, float] = {}
    for key, outcome in sorted(state.outcomes.items()):
        rows.update(outcome.rows)
        phases.update({f"{key}.{name}": at for name, at in outcome.phases.items()})
    leader = state.outcomes.get(chief)
    artifacts = {} if leader is None else leader.artifacts
    return {
        "failures": ordered_failures(state),
        "metrics": {} if leader is None else dict(leader.metrics),
        "result": None if leader is None else leader.result,
        "restarts": len(state.incidents),
        "steps": max((max(o.step, 0) for o in state.outcomes.values()), default=0),
        "rows": dict(rows),
        "phases": phases,
        "resumed_from": artifacts.get("resumed_from"),
        "checkpoint": artifacts.get("checkpoint"),
        "model": artifacts.get("model"),
    }


def ordered_failures(state: RunState) -> tuple[Failure, ...]:
    """Return the failures, the cause first and its consequences by time after it.

    None of a run that was interrupted: that somebody asked for its end is no failure.
    """
    if not state.failures or state.verdict is Verdict.INTERRUPTED:
        return ()
    first = first_cause(state.failures)
    rest = sorted((f for f in state.failures if f is not first), key=lambda f: f.time)
    return (first, *rest)


def error_of(state: RunState, timeout_s: float | None) -> TfosError | None:
    """Return the error to raise for a run that ended in `state`; None when it is done."""
    fed = [outcome for outcome in state.outcomes.values() if TRAIN in outcome.rows]
    # Until every feed has ended, no rows so far says nothing about the DataFrame.
    all_read = bool(fed) and all("feed_ended" in outcome.phases for outcome in fed)
    if all_read and not any(o.rows[TRAIN] for o in fed) and state.verdict in _BY_ITSELF:
        return EmptyDataError(
            "the DataFrame to train on has no rows: check the filters and joins in pre_train"
        )
    if state.verdict is Verdict.DONE:
        return None
    if state.verdict is Verdict.INTERRUPTED:
        return _interrupted(state)
    failures = ordered_failures(state)
    first = failures[0]
    if state.verdict is Verdict.TIMED_OUT:
        return RunTimeoutError(first.message, timeout_s=timeout_s)
    return WorkerFailedError(
        f"{first.key}: {first.message}",
        failures=failures,
        exit_code=first.cause.exit_code,
    )


def _interrupted(state: RunState) -> InterruptedRunError:
    asked = state.failures[0]
    who = asked.message if asked.signal_name is None else f"interrupted by {asked.signal_name}"
    step = max((outcome.step for outcome in state.outcomes.values()), default=-1)
    where = f"at step {step:,}" if step > 0 else "before the first step"
    kept = [
        o.artifacts["checkpoint"] for o in state.outcomes.values() if "checkpoint" in o.artifacts
    ]
    way_on = f"checkpoint {kept[0]}: the same command resumes" if kept else "no checkpoint was kept"
    return InterruptedRunError(f"{who} {where}; {way_on}", signal_name=asked.signal_name or "")
