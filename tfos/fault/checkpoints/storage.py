"""Say what a place for checkpoint directories must do.

Locally a directory appears whole, by rename. Elsewhere its files arrive one by one and the commit
marker last, so that a listing made meanwhile finds no marker.
"""

from __future__ import annotations

import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tfos.errors import CheckpointCorruptError

__all__ = [
    "LEFTOVERS",
    "OPTION",
    "PROBE",
    "REMOVED",
    "REPORTS_NAME",
    "STAGING",
    "CheckpointStorage",
    "remove_staging",
    "too_large",
]

REPORTS_NAME: Final = "reports"
"""The entry of a job's directory that holds its runs' reports."""
OPTION: Final = "--checkpoint-dir"
"""The option that says where checkpoints are kept."""
STAGING: Final = ".staging-"
REMOVED: Final = ".removed-"
PROBE: Final = ".probe-"
LEFTOVERS: Final = (STAGING, REMOVED, PROBE)
"""How the names of what is in the making, or on its way out, begin."""

_logger = logging.getLogger(__name__)


class CheckpointStorage(ABC):
    """One directory of checkpoint directories.

    Every method blocks for as long as the storage takes and raises CheckpointError when it fails.
    Those that read an entry raise CheckpointCorruptError where something other than a file or a
    directory stands there, and CheckpointUnreadableError where this user may not read it.
    """

    def __init__(self, location: str) -> None:
        self.location = location

    @property
    def staging_place(self) -> tuple[str, str]:
        """Where `staging` lies, and the option or variable that decides it."""
        return self.location, OPTION

    def path(self, name: str) -> str:
        """Return the full path or URL of an entry."""
        return f"{self.location}/{name}"

    @abstractmethod
    def names(self) -> list[str]:
        """Return the entries, sorted; none when the directory is not there."""

    def leftovers(self) -> list[str]:
        """Return the entries that a process which died in the middle of its work left behind."""
        return [name for name in self.names() if name.startswith(LEFTOVERS)]

    @abstractmethod
    def read(self, name: str, file: str, most_bytes: int) -> bytes | None:
        """Return a small file of an entry; None when it is not there.

        One of more than `most_bytes` is not read: CheckpointCorruptError.
        """

    @abstractmethod
    def sizes(self, name: str) -> dict[str, int]:
        """Return the size in bytes of each regular file of an entry; none when it is not there."""

    @abstractmethod
    def chunks(self, name: str, file: str) -> Iterator[bytes]:
        """Yield a file of an entry piece by piece; none when it is not there."""

    @abstractmethod
    @contextmanager
    def staging(self) -> Iterator[str]:
        """Give an empty local directory for a checkpoint in the making; gone after the block."""

    @abstractmethod
    def publish(self, staging: str, name: str, last: str, check: Callable[[], None]) -> None:
        """Make the staged directory the entry `name`, its file `last` appearing no sooner.

        `check` is called right before that; what it raises passes through and nothing appears.
        """

    @abstractmethod
    def write(self, name: str, file: str, data: bytes) -> None:
        """Write a small file of an entry, complete or absent, in place of one of its name."""

    @abstractmethod
    def fetch(self, name: str, files: Iterable[str], directory: str) -> str:
        """Return a local directory with these files of an entry, in `directory` if need be."""

    @abstractmethod
    def remove(self, name: str, first: str) -> None:
        """Remove an entry, its file `first` before the others. Idempotent."""

    @abstractmethod
    def probe(self) -> None:
        """Write and remove a small file, making the directory if it is not there."""


def too_large(path: str, size_bytes: int, most_bytes: int) -> CheckpointCorruptError:
    """Return the error of a file that is not read for its size."""
    return CheckpointCorruptError(
        f"{path} has {size_bytes:,} bytes, {most_bytes:,} at most: it is not read", path=path
    )


def remove_staging(path: str) -> None:
    """Remove a staging directory; warn of what cannot be removed."""

    # Leftovers cost space, not correctness: the next save removes them.
    def warn(_: object, name: str, failure: Any) -> None:
        if not isinstance(failure[1], FileNotFoundError):
            _logger.warning("%s could not be removed: %s", name, failure[1])

    shutil.rmtree(path, onerror=warn)
