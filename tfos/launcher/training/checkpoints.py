"""Keep a training process's checkpoints in the run's store, and tell its host of them."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Protocol

from tfos.errors import CheckpointError, CheckpointFencedError
from tfos.fault.checkpoints.source import find_source
from tfos.fault.checkpoints.store import SAVE_WAIT_S, CheckpointInfo, CheckpointStore
from tfos.launcher.handover.messages import Artifact, FromProcess, Saving
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.read_plan import FeedPosition
from tfos.training_parts import Checkpoints

__all__ = ["StoredCheckpoints"]


_log = logging.getLogger("tfos")

_AFTER_ERROR_S: Final = 10.0

FAILURES_EXCUSED: Final = 2
"""How many of the saves that come in turn may fail one after the other."""


_NUMBER: Final = re.compile(r"\d+")


class _Link(Protocol):
    def notify(self, text: str, *, warning: bool = False) -> None: ...

    def send(self, message: FromProcess) -> None: ...


class StoredCheckpoints(Checkpoints):
    """The run's checkpoint store, for one generation; tells the host what it read and wrote.

    A context manager: leaving it waits for the save under way, and raises its error. After an error
    of the block it waits for 10 s at most, and not at all once this process was told to stop.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        spec: TrainingSpec,
        link: _Link,
        progress: Callable[[], tuple[FeedPosition | None, bool]] = lambda: (None, False),
    ) -> None:
        self._store = store
        self._facts = spec.facts
        self._progress = progress
        self._link = link
        self._turn = threading.Lock()
        self._saving: Future[CheckpointInfo] | None = None
        self._saving_excused = False
        self._failed_in_row = 0
        self._unwritten: str | None = None
        self._last: CheckpointInfo | None = None
        self._began_from_saved = False
        self._downloads = ExitStack()

    def __enter__(self) -> StoredCheckpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._downloads:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.flush()
        elif isinstance(error, Exception):
            # What restarts this training goes on from the checkpoint that is nearly there.
            try:
                self._flush(_AFTER_ERROR_S)
            except Exception as second:
                _log.warning("the last checkpoint did not become complete: %s", second)

    def save(
        self,
        step: int,
        write: Callable[[str], None],
        *,
        positions: Mapping[int, FeedPosition] | None = None,
        metadata: Mapping[str, Any] | None = None,
        excused: bool = False,
    ) -> bool:
        """Save; see `tfos.training_parts.Checkpoints`."""
        if self._store is None:
            return True
        with self._turn:
            # That the save before failed is no reason not to try this one; that it hangs is.
            if not self.flush(excused=excused or self._saving_excused) and self._saving is not None:
                return False
            self._saving_excused = excused
            begin = functools.partial(self._begin, self._store, step, write, positions, metadata)
            return self._succeeds(begin, excused)

    def _begin(
        self,
        store: CheckpointStore,
        step: int,
        write: Callable[[str], None],
        positions: Mapping[int, FeedPosition] | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self._link.send(Saving(True))
        if positions is None and self._facts.num_feeds == 1:
            used, _ = self._progress()
            positions = {} if used is None else {0: used}
        try:
            self._saving = store.begin_save(
                step,
                self._facts.generation,
                write,
                positions=positions,
                metadata={"row_orders": self._facts.row_orders, **(metadata or {})},
                on_complete=self._tell,
            )
        except BaseException:
            self._link.send(Saving(False))
            raise
        self._saving.add_done_callback(lambda _: self._link.send(Saving(False)))

    def _succeeds(self, call: Callable[[], None], excused: bool) -> bool:
        try:
            call()
        except CheckpointFencedError:
            raise
        except CheckpointError as error:
            self._failed_in_row += 1
            if not excused or self._failed_in_row > FAILURES_EXCUSED:
                raise CheckpointError(f"{error}; {self._last_complete()}") from error
            self._notify_unwritten(error)
            return False
        return True

    def _notify_unwritten(self, error: CheckpointError) -> None:
        """Tell the user when a checkpoint is missing first, and not again of the same cause."""
        number = getattr(error.__cause__, "errno", None)
        known = _NUMBER.sub("", str(error)) if number is None else os.strerror(number)
        if known != self._unwritten:
            self._unwritten = known
            self._link.notify(
                f"{error}; training goes on without this checkpoint; {self._last_complete()}",
                warning=True,
            )

    def _last_complete(self) -> str:
        if self._last is None:
            return "no checkpoint is complete yet"
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._last.created))
        return f"the last complete checkpoint is of step {self._last.step}, {at}"

    def flush(self, *, excused: bool = False) -> bool:
        """Wait for the last save; see `tfos.training_parts.Checkpoints`."""
        return self._succeeds(functools.partial(self._flush, SAVE_WAIT_S), excused)

    def latest(self) -> CheckpointInfo | None:
        """Return the latest; see `tfos.training_parts.Checkpoints`."""
        self.flush()
        return None if self._store is None else self._store.latest()

    def restore(self, read: Callable[[str], None]) -> CheckpointInfo | None:
        """Restore; see `tfos.training_parts.Checkpoints`."""
        if self._store is None:
            return None
        self.flush()
        downloads = tempfile.mkdtemp(
            prefix="checkpoint-", dir=os.path.realpath(tempfile.gettempdir())
        )
        # What was downloaded stays: variables that the first step makes are read only then.
        self._downloads.callback(shutil.rmtree, downloads, ignore_errors=True)
        loaded = self._store.latest_loaded(downloads)
        if not os.listdir(downloads):
            os.rmdir(downloads)  # it was used where it lies
        if loaded is None:
            return None
        self._last = loaded.info
        self._began_from_saved = True
        read(loaded.path)
        for name in ("resumed_from", "checkpoint"):
            self._link.send(Artifact(name, loaded.info.path))
        return loaded.info

    def read_from(self, source: str, read: Callable[[str], None]) -> None:
        """Read what another saved; see `tfos.training_parts.Checkpoints`."""
        downloads = tempfile.mkdtemp(prefix="warm-start-", dir=os.getcwd())
        self._downloads.callback(shutil.rmtree, downloads, ignore_errors=True)
        self._began_from_saved = True
        read(find_source(source).fetch(downloads))

    def warn_of_unused(self) -> None:
        """Warn of a ``--warm-start`` that ``train``, which has ended, made no use of."""
        if self._facts.warm_start is not None and not self._began_from_saved:
            self._link.notify(
                f"--warm-start {self._facts.warm_start} was not used: train called neither "
                "ctx.fit nor ctx.checkpoints.read_from",
                warning=True,
            )

    def _tell(self, info: CheckpointInfo) -> None:
        self._failed_in_row = 0
        self._last = info
        if self._unwritten is not None:
            self._unwritten = None
            self._link.notify(f"checkpoints are written again: step {info.step} is complete")
        self._link.send(Artifact("checkpoint", info.path))

    def _flush(self, timeout_s: float) -> None:
        saving = self._saving
        if saving is None:
            return
        if not wait([saving], timeout_s).done:
            raise CheckpointError(
                f"the last checkpoint of {self._facts.key} was not complete after {timeout_s:g} s: "
                "look at the storage that --checkpoint-dir names, or name another"
            )
        # Its error is told once: what follows is another save's.
        self._saving = None
        saving.result()
