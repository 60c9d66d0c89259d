"""Describe a training process to itself: the one file its role host writes for it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tfos.launcher.application.shipped import UnpackedApplication
from tfos.read_plan import FeedPosition
from tfos.topology import ClusterSpec, Endpoint, TaskKey
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
        The schema of every fed DataFrame of the run, by name, as JSON.
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
    schemas: Mapping[str, Any]
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
        facts = self.facts
        document = {
            **self.__dict__,
            "facts": {
                **facts.__dict__,
                "key": str(facts.key),
                "cluster": facts.cluster.to_json(),
                "trainers": [str(key) for key in facts.trainers],
                "row_orders": list(facts.row_orders),
                "store": None if facts.store is None else str(facts.store),
                "params": dict(facts.params),
                "args": list(facts.args),
            },
            "application": None if self.application is None else asdict(self.application),
            "passed_over": list(self.passed_over),
            "schemas": dict(self.schemas),
        }
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file)

    @classmethod
    def read(cls, path: str) -> TrainingSpec:
        """Read back what `write` wrote."""
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        facts = document.pop("facts")
        facts["key"] = TaskKey.parse(facts["key"])
        facts["cluster"] = ClusterSpec.from_json(facts["cluster"])
        facts["row_orders"] = tuple(facts["row_orders"])
        facts["store"] = None if facts["store"] is None else Endpoint.parse(facts["store"])
        facts["trainers"] = tuple(TaskKey.parse(key) for key in facts["trainers"])
        continue_at = document.pop("continue_at")
        files = document.pop("application")
        if files is not None:
            files = UnpackedApplication(files["directory"], tuple(files["paths"]), files["home"])
        return cls(
            facts=ProcessFacts(**facts),
            application=files,
            continue_at=None if continue_at is None else FeedPosition(*continue_at),
            **document,
        )
