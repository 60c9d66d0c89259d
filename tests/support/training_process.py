"""A `TrainContext` in the test's own process: a real feed, real checkpoints, real TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from tfos.arrow_feed.dataset import serve
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.spool import SpoolWriter
from tfos.base import TrainContext
from tfos.config import FeedConfig
from tfos.fault.checkpoints import CheckpointStore
from tfos.launcher.stored_checkpoints import StoredCheckpoints
from tfos.launcher.training_feed import TrainingFeed
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

    def tell(self, kind: str, **content: Any) -> None:
        pass

    def notify(self, text: str, *, warning: bool = False) -> None:
        pass

    def aim(self, epochs: int | None, max_steps: int | None) -> None:
        pass


@contextmanager
def training_feed(directory: Path, tables: Mapping[str, pa.Table]) -> Iterator[TrainingFeed]:
    """Spool tables and serve them to TensorFlow, as a role that is fed all of them."""
    schemas = {name: FeedSchema.from_arrow(table.schema) for name, table in tables.items()}
    readers = {}
    with ExitStack() as stack:
        for name, table in tables.items():
            places = [Place(directory / name, 1 << 30)]
            with SpoolWriter(places, {name: schemas[name]}, FeedConfig()) as writer:
                for batch in table.to_batches(100):
                    writer.write(batch)
            reader = SpoolReader(writer.directory, wait_timeout_s=5)
            stack.callback(reader.close)
            readers[name] = reader
        yield TrainingFeed(schemas, readers, serve(readers), None)


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
