"""The file by which ``pl_submit`` tells the driver what to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfos.config import JobConfig

__all__ = ["Submission"]


@dataclass(frozen=True)
class Submission:
    """What the driver is told, kept in a 0600 file that only lives as long as the run.

    Parameters
    ----------
    app
        Absolute path of the application file.
    job_class
        Name of the Job class in it; None when it defines exactly one.
    config
        The resolved `JobConfig`, as JSON.
    pid_file
        Where the driver's Python process writes its pid first of all.
    result_file
        Where the driver writes the run's record, a `RunResult`, at the end.
    registry_file
        Where the driver notes its run's place in an external ZooKeeper: readable by the user alone.
        Where there is a `runs_root`, it does so there.
    submitted_at
        When, in seconds since the epoch: ``--timeout`` begins.
    client
        The submitting process, a `ProcessIdentity` as JSON: when it is gone the driver ends the
        run. None for a driver on another host.
    tag
        The YARN tag of this submission alone; None where its client follows it, and off YARN.
    runs_root
        Where such a driver leaves the run's record; see `tfos.launcher.handover.run_directory`.
    """

    app: str
    job_class: str | None
    config: Mapping[str, Any]
    pid_file: str
    result_file: str
    registry_file: str
    submitted_at: float
    client: Mapping[str, Any] | None = None
    tag: str | None = None
    runs_root: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document the driver reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Submission:
        """Read back what `to_json` wrote; raises TypeError on other fields."""
        return cls(**data)

    @property
    def job_config(self) -> JobConfig:
        """The configuration, validated again; raises `pydantic.ValidationError` if damaged."""
        return JobConfig.model_validate(dict(self.config))
