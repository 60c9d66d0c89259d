"""The file by which ``pl_submit`` tells the driver what to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfos import wire
from tfos.config import JobConfig
from tfos.fault.processes.identity import ProcessIdentity
from tfos.files.private import write_private

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
        The resolved configuration; validated again as it is read.
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
        The submitting process: when it is gone the driver ends the run. None for a driver on
        another host.
    tag
        The YARN tag of this submission alone; None where its client follows it, and off YARN.
    runs_root
        Where such a driver leaves the run's record; see `tfos.launcher.handover.run_directory`.
    """

    app: str
    job_class: str | None
    config: JobConfig
    pid_file: str
    result_file: str
    registry_file: str
    submitted_at: float
    client: ProcessIdentity | None = None
    tag: str | None = None
    runs_root: str | None = None

    def write(self, path: Path) -> str:
        """Write this to a new file that only this user can read, and return its path."""
        return write_private(path, wire.to_text(self))

    @classmethod
    def read(cls, path: str) -> Submission:
        """Read back what `write` wrote; raises OSError, or ValueError if it is damaged."""
        return wire.from_text(cls, Path(path).read_text(encoding="utf-8"))
