"""A `TrainContext` in the test's own process: a real feed, real checkpoints, real TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from tfos import wire
from tfos.arrow_feed.dataset import serve
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.service import FeedService
from tfos.arrow_feed.spool import SpoolWriter
from tfos.base import TrainContext
from tfos.config import FeedConfig
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.launcher.handover.messages import FromProcess
from tfos.launcher.training.checkpoints import StoredCheckpoints
from tfos.launcher.training.feed import TrainingFeed
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey
from tfos.training_parts import ProcessFacts

CHIEF = TaskKey(Role.CHIEF, 0)
WORKER = TaskKey(Role.WORKER, 0)


class Link:
    """What a role host would hear."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, dict[str, float]]] = []

    def report(self, step: int, rows: int, metrics: Mapping[str, float]) -> None:
        self.reports.append((step, rows, dict(metrics)))

    def should_stop(self) -> bool:
        return False

    def send(self, message: FromProcess) -> None:
        pass

    def notify(self, text: str, *, warning: bool = False) -> None:
        pass

    def aim(self, epochs: int | None, max_steps: int | None) -> None:
        pass


def spool(directory: Path, name: str, table: pa.Table) -> Path:
    """Write a table as the spool of one dataset; return the spool's directory."""
    schemas = {name: FeedSchema.from_arrow(table.schema)}
    with SpoolWriter([Place(directory, 1 << 30)], schemas, FeedConfig()) as writer:
        for batch in table.to_batches(100):
            writer.write(batch)
    return writer.directory


@contextmanager
def training_feed(spooled: Path, name: str, table: pa.Table) -> Iterator[TrainingFeed]:
    """Serve a spool to TensorFlow in this process."""
    with closing(SpoolReader(spooled, wait_timeout_s=5)) as reader:
        schemas = {name: FeedSchema.from_arrow(table.schema)}
        service = FeedService({name: reader}, 0)
        serve(service)
        yield TrainingFeed(schemas, {name: reader}, service, None)


@contextmanager
def served_roles(facts: ProcessFacts, keys: Sequence[TaskKey], spooled: Path) -> Iterator[None]:
    """Run TensorFlow's servers of some roles, fed by a spool, in one process of their own.

    In the chief's process a worker waits for the interpreter's lock, to read rows, while the chief
    waits with it held for the worker to take a function.
    """
    arguments = [json.dumps(wire.to_json(facts.cluster)), str(spooled), *map(str, keys)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, *arguments], stdin=subprocess.PIPE, env=environ
    ) as process:
        try:
            yield
        finally:
            process.kill()


_SERVE = """
import json, sys
from tfos import wire
from tfos.arrow_feed.dataset import serve
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.service import FeedService
from tfos.frameworks.tensorflow.parameter_served import start_server
from tfos.topology import ClusterSpec, TaskKey
from tfos.training_parts import ProcessFacts

reader = SpoolReader(sys.argv[2], wait_timeout_s=5)
service = FeedService({"train": reader}, 0)
serve(service)
cluster = wire.from_json(ClusterSpec, json.loads(sys.argv[1]))
keys = [TaskKey.parse(text) for text in sys.argv[3:]]
servers = [
    start_server(ProcessFacts("job", "run", 1, key, cluster, (), (0,))) for key in keys
]
sys.stdin.read()  # until the test's process has gone, if it ends without killing this one
"""


def facts_of(cluster: Mapping[TaskKey, Endpoint]) -> ProcessFacts:
    """Return what a chief knows whose cluster has one fed process."""
    return ProcessFacts("job", "run", 1, CHIEF, ClusterSpec(cluster), (CHIEF,), (0,))


def context(
    feed: TrainingFeed, runtime: Any, *, facts: ProcessFacts, store: Path | None = None
) -> TrainContext:
    """Return the context of a chief; `store` is where checkpoints are kept, if at all."""
    link = Link()
    kept = None if store is None else CheckpointStore(str(store), "job", run_id="run")
    return TrainContext(
        facts,
        feed=feed,
        checkpoints=StoredCheckpoints(kept, SimpleNamespace(facts=facts), link),
        link=link,
        runtime=runtime,
        export_to=lambda write, step: None,
    )
