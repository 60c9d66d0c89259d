"""Join the feed to a training process: open its spools, serve them to TensorFlow, read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.service import FeedService
from tfos.errors import NotFedError, SchemaMismatchError
from tfos.frameworks.contract import TRAIN
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.read_plan import FeedPosition, ReadPlan
from tfos.training_parts import HostLink

__all__ = ["TrainingFeed"]


class TrainingFeed:
    """What `TrainContext` reads its data from."""

    def __init__(
        self,
        schemas: Mapping[str, FeedSchema],
        readers: Mapping[str, SpoolReader],
        service: FeedService,
        continue_at: FeedPosition | None,
    ) -> None:
        self.continue_at = continue_at
        self._schemas = schemas
        self._readers = readers
        self.service = service
        self.is_fed = bool(readers)
        self._used: FeedPosition | None = None

    @classmethod
    def open(cls, spec: TrainingSpec, link: HostLink) -> TrainingFeed:
        """Open this process's spools."""
        readers = {name: reader for reader in _readers(spec, link) for name in reader.names}
        service = FeedService(readers, spec.feed_index, spec.continue_at)
        return cls(spec.schemas, readers, service, spec.continue_at)

    def progress(self) -> tuple[FeedPosition | None, bool]:
        """Say up to where ``train`` has surely been used here, and whether any was handed out."""
        used = self._used or self.service.used(TRAIN)
        return used, used is not None

    def dataset(self, plan: ReadPlan, mapped: Callable[[Any], Any] | None = None) -> Any:
        """Return a tf.data.Dataset of columns."""
        import tensorflow as tf

        from tfos.arrow_feed import dataset

        if tf.executing_eagerly():
            # Within a function it may be meant for the process that runs it.
            self._reader(plan.name)
        return dataset.dataset(plan, self._schema(plan.name), mapped=mapped)

    def tracked_dataset(
        self,
        plan: ReadPlan,
        starts: Mapping[int, FeedPosition],
        mapped: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return the common loop's dataset."""
        from tfos.arrow_feed import dataset

        return dataset.dataset(
            plan, self._schema(plan.name), endless=True, tracked=True, starts=starts, mapped=mapped
        )

    def batches(self, plan: ReadPlan) -> Iterator[dict[str, Any]]:
        """Return NumPy batches of this process's own part."""
        return self._batches(self._reader(plan.name), plan)

    def count(self, name: str) -> int:
        """Return the rows of this process's own part."""
        return self._reader(name).count(name)

    def count_there(self, name: str) -> Any:
        """Return an op that counts the rows of the part of the process that runs it."""
        from tfos.arrow_feed import dataset

        return dataset.count_rows(name)

    def _reader(self, name: str) -> SpoolReader:
        self._schema(name)
        if name not in self._readers:
            raise NotFedError(
                f"dataset {name!r} is not fed to this process; fed here: "
                f"{', '.join(sorted(self._readers)) or 'none'}"
            )
        return self._readers[name]

    def _batches(self, reader: SpoolReader, plan: ReadPlan) -> Iterator[dict[str, Any]]:
        for batch in reader.batches(plan):
            if plan.name == TRAIN and self._used is None:
                self._used = plan.start
            yield batch.columns
            # Asked for the next one: this one has been used.
            if plan.name == TRAIN:
                self._used = batch.position

    def _schema(self, name: str) -> FeedSchema:
        if name not in self._schemas:
            raise SchemaMismatchError(
                f"pre_train returned no DataFrame named {name!r}; it returned: "
                f"{', '.join(sorted(self._schemas))}"
            )
        return self._schemas[name]


def _readers(spec: TrainingSpec, link: HostLink) -> list[SpoolReader]:
    if spec.spool is None:
        return []
    return [
        SpoolReader(spec.spool, wait_timeout_s=spec.wait_timeout_s, should_stop=link.should_stop)
    ]
