"""Keep a training process's checkpoints in the run's store, and tell its host of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from tfos.fault.checkpoints import CheckpointInfo, CheckpointStore
from tfos.launcher.training_spec import TrainingSpec
from tfos.read_plan import FeedPosition
from tfos.training_parts import Checkpoints

__all__ = ["StoredCheckpoints"]


class _Link(Protocol):
    def tell(self, kind: str, **content: Any) -> None: ...


class StoredCheckpoints(Checkpoints):
    """The run's checkpoint store, for one generation; tells the host what it read and wrote."""

    def __init__(self, store: CheckpointStore | None, spec: TrainingSpec, link: _Link):
        self._store = store
        self._facts = spec.facts
        self._link = link

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()

    def save(
        self,
        step: int,
        write: Callable[[str], None],
        *,
        positions: Mapping[int, FeedPosition] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckpointInfo | None:
        """Save; see `tfos.base.Checkpoints`."""
        if self._store is None:
            return None
        info = self._store.save(
            step,
            self._facts.generation,
            write,
            positions=positions,
            metadata=metadata,
        )
        self._link.tell("artifact", name="checkpoint", path=info.path)
        return info

    def flush(self) -> None:
        """Wait for the last save; see `tfos.base.Checkpoints`."""

    def latest(self) -> CheckpointInfo | None:
        """Return the latest; see `tfos.base.Checkpoints`."""
        return None if self._store is None else self._store.latest()

    def restore(self, read: Callable[[str], None]) -> CheckpointInfo | None:
        """Restore; see `tfos.base.Checkpoints`."""
        if self._store is None:
            return None
        with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=os.getcwd()) as downloads:
            loaded = self._store.latest_loaded(downloads)
            if loaded is None:
                return None
            read(loaded.path)
        for name in ("resumed_from", "checkpoint"):
            self._link.tell("artifact", name=name, path=loaded.info.path)
        return loaded.info
