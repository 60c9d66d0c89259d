"""Hold the record a run ends with: what `tfos.run` returns and ``--result-json`` holds."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast

from tfos import wire
from tfos.errors import ConfigError, ExitCode, TfosError
from tfos.fault.failures.record import Failure
from tfos.fault.failures.restart_policy import IncidentRecord

__all__ = ["RunOutcome", "RunResult", "discard_record", "now_iso", "outcome_of"]

RunOutcome = Literal["done", "failed", "interrupted", "timed_out", "already_running"]

_OUTCOMES: Mapping[int, RunOutcome] = {
    ExitCode.OK: "done",
    ExitCode.TIMEOUT: "timed_out",
    ExitCode.ALREADY_RUNNING: "already_running",
    ExitCode.INTERRUPTED: "interrupted",
}


def outcome_of(exit_code: int) -> RunOutcome:
    """Return the outcome an exit code of `tfos.errors.ExitCode` stands for; others are "failed"."""
    return _OUTCOMES.get(exit_code, "failed")


def now_iso() -> str:
    """Return the present instant as ISO 8601 text in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True, repr=False)
class RunResult:
    """How a run ended.

    Parameters
    ----------
    outcome
        "done", "failed", "interrupted", "timed_out" or "already_running".
    exit_code
        What ``pl_submit`` ends with; see `tfos.errors.ExitCode`.
    job
        Job name; None when the run ended before the application was loaded.
    run_id
        This run's id; None when it ended before one was drawn.
    error
        One line: what went wrong; None when nothing did.
    failures
        What failed, the cause first.
    metrics
        The last metrics reported; None for what JSON has no number for, once it was written.
    result
        What ``train`` returned on the chief, as a JSON value; see `Job.train`.
    steps
        Training steps completed, counted over resumes; 0 when none was reported.
    rows
        Rows fed, by dataset name, over all roles.
    restarts
        Restarts used: the number of `incidents`.
    incidents
        Failures that a restart answered, oldest first.
    report
        The report of failures kept beside the checkpoints; None for none.
    resumed_from
        The checkpoint this run started from; None for a fresh start.
    checkpoint
        The last complete checkpoint; None for none.
    model
        The exported SavedModel; None for none.
    phases
        Seconds since the epoch at which the run entered each phase, by phase name.
    started, ended
        ISO 8601 instants in UTC.
    """

    outcome: RunOutcome
    exit_code: int
    job: str | None = None
    run_id: str | None = None
    error: str | None = None
    failures: tuple[Failure, ...] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    result: Any = None
    steps: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    incidents: tuple[IncidentRecord, ...] = ()
    report: str | None = None
    resumed_from: str | None = None
    checkpoint: str | None = None
    model: str | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    started: str = field(default_factory=now_iso)
    ended: str = field(default_factory=now_iso)

    def __repr__(self) -> str:
        """Return what tells this run from others: no default, and no phases."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "phases"}
        plain = RunResult("done", 0, started=self.started, ended=self.ended)
        given = (f"{n}={v!r}" for n, v in told.items() if v != getattr(plain, n) or n == "outcome")
        return f"RunResult({', '.join(given)})"

    @property
    def step(self) -> int:
        """The step that training came to: `steps`, by the name it has in `FitResult`."""
        return self.steps

    @classmethod
    def from_error(cls, error: TfosError, **known: Any) -> RunResult:
        """Build the record of a run that `error` ended; `known` are further fields."""
        return cls(
            outcome=outcome_of(error.exit_code),
            exit_code=int(error.exit_code),
            error=" ".join(str(error).split()),
            failures=tuple(known.pop("failures", getattr(error, "failures", ()))),
            **known,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values: failures and incidents as objects."""
        return cast(dict[str, Any], wire.to_json(self))

    def to_text(self) -> str:
        """Return the record as JSON text; numbers that JSON lacks (NaN, infinities) become null.

        Raises TypeError if `result` is not a JSON value.
        """
        return json.dumps(_without_nan(self.to_json()), indent=2, allow_nan=False) + "\n"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON, by rename: a reader sees all of it or nothing.

        Makes missing directories.

        Raises
        ------
        ConfigError
            If it cannot be written there; names the path.
        TypeError
            If `result` is not a JSON value.
        """
        text = self.to_text()
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(target, text)
        except OSError as error:
            raise ConfigError(
                f"cannot write the run's record to {target}: {error.strerror or error}; "
                "choose another --result-json"
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunResult:
        """Read what `write` wrote; raises OSError or ValueError."""
        return cls.from_text(Path(path).read_text(encoding="utf-8"))

    @classmethod
    def from_text(cls, text: str | bytes) -> RunResult:
        """Read back what `to_text` returned; raises ValueError on anything else."""
        try:
            return wire.from_text(cls, text)
        except ValueError as error:
            raise ValueError(f"not a run record: {error}") from error


def discard_record(path: str | os.PathLike[str]) -> None:
    """Remove an earlier run's record: after a crash it would be taken for this one's.

    Makes missing directories; raises ConfigError where no record can be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--result-json {target}: cannot be written: {error.strerror or error}"
        ) from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _replace(target: Path, text: str) -> None:
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with open(aside, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
