"""Describe a training process to itself: the one file its role host writes for it."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfos import wire
from tfos.arrow_feed.schema import FeedSchema
from tfos.files.private import write_private
from tfos.launcher.application.shipped import UnpackedApplication
from tfos.read_plan import FeedPosition
from tfos.training_parts import ProcessFacts

__all__ = ["STACKS_FILE", "STACKS_SIGNAL", "TrainingSpec"]

STACKS_FILE = "stacks.txt"
"""Where a training process writes every thread's stack, in its own directory."""
STACKS_SIGNAL = signal.SIGUSR2
"""What makes it do so."""


@dataclass(frozen=True)
class TrainingSpec:
    """Everything a training process is told, besides its environment.

    Parameters
    ----------
    facts
        Who it is.
    arch
        Architecture, as `load_framework` names it.
    trains
        Whether it runs ``Job.train``.
    job_file
        The pickled Job, written by its own role host.
    application
        The application's files; None when the Job needs none.
    program
        The application's file as the user named it, for ``sys.argv``; empty in a notebook.
    schemas
        The schema of every fed DataFrame of the run, by name.
    spool
        Directory of the spool with what is fed to this very process; None for one not fed.
    feed_index
        Which part of ``train`` this process is fed, from 0.
    continue_at
        The position up to which an earlier process of the same generation has used every row of
        ``train``; None when this is the first.
    checkpoint_url, checkpoint_keep
        Where checkpoints live (None: none are kept) and how many.
    passed_over
        Names of checkpoints that cannot be used; the driver has warned of them.
    wait_timeout_s
        Longest a reader waits for rows.
    log_level
        Name of the logging level.
    """

    facts: ProcessFacts
    arch: str
    trains: bool
    job_file: str
    application: UnpackedApplication | None
    program: str
    schemas: Mapping[str, FeedSchema]
    spool: str | None
    feed_index: int
    continue_at: FeedPosition | None
    checkpoint_url: str | None
    checkpoint_keep: int
    passed_over: Sequence[str]
    wait_timeout_s: float
    log_level: str

    def write(self, path: str) -> None:
        """Write the spec, readable by this user alone."""
        write_private(path, wire.to_text(self))

    @classmethod
    def read(cls, path: str) -> TrainingSpec:
        """Read back what `write` wrote."""
        return wire.from_text(cls, Path(path).read_text(encoding="utf-8"))
