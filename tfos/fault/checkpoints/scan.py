"""Tell complete checkpoints from damaged and unfinished ones, by what lies in the storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfos.errors import CheckpointCorruptError, CheckpointError, CheckpointUnreadableError
from tfos.fault.checkpoints.manifest import (
    COMMIT_MAX_BYTES,
    COMMIT_NAME,
    MANIFEST_MAX_BYTES,
    MANIFEST_NAME,
    CheckpointInfo,
    checkpoint_name,
    commit_marker,
    is_checkpoint_name,
    read_manifest,
)
from tfos.fault.checkpoints.storage import CheckpointStorage

__all__ = ["StorageScan", "scan_storage"]


@dataclass
class StorageScan:
    """What a storage held at one time.

    Parameters
    ----------
    complete
        Committed and whole by their sizes, the one saved last first.
    damaged
        Committed, but not what was committed: by name, with what is wrong.
    unreadable
        What this user may not read, by name, with why.
    unfinished
        Names of those without a commit marker.
    names
        Every name taken.
    """

    complete: list[CheckpointInfo] = field(default_factory=list)
    damaged: dict[str, CheckpointCorruptError] = field(default_factory=dict)
    unreadable: dict[str, CheckpointUnreadableError] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    names: frozenset[str] = frozenset()

    @property
    def unusable(self) -> Mapping[str, CheckpointError]:
        """Damaged and unreadable ones by name, with what is wrong."""
        return {**self.damaged, **self.unreadable}

    def newest_generation(self, run_id: str) -> int:
        """Return the latest generation of a run that has saved; 0 when none has."""
        return max((i.generation for i in self.complete if i.run_id == run_id), default=0)

    def next_sequence(self) -> int:
        """Return the number that makes the next checkpoint the newest."""
        return 1 + max((info.sequence for info in self.complete), default=0)

    def free_name(self, step: int, generation: int) -> str:
        """Return a name for a checkpoint under which nothing lies."""
        revision = 1
        while (name := checkpoint_name(step, generation, revision)) in self.names:
            revision += 1
        return name


def scan_storage(storage: CheckpointStorage) -> StorageScan:
    """Look at every checkpoint of a storage; checksums of their files are not verified.

    Raises
    ------
    CheckpointError
        If the storage cannot be read, or a newer tfos wrote to it.
    """
    names = storage.names()
    scan = StorageScan(names=frozenset(names))
    for name in filter(is_checkpoint_name, names):
        try:
            info = _inspect(storage, name)
        except CheckpointUnreadableError as error:
            scan.unreadable[name] = error
            continue
        except CheckpointCorruptError as error:
            if not _removed(storage, name):
                scan.damaged[name] = error
            continue
        if info is None:
            scan.unfinished.append(name)
        else:
            scan.complete.append(info)
    scan.complete.sort(key=lambda info: (info.sequence, info.generation), reverse=True)
    return scan


def _inspect(storage: CheckpointStorage, name: str) -> CheckpointInfo | None:
    path = storage.path(name)
    sizes = storage.sizes(name)
    marker = storage.read(name, COMMIT_NAME, COMMIT_MAX_BYTES)
    if marker is None:
        return None
    manifest = storage.read(name, MANIFEST_NAME, MANIFEST_MAX_BYTES)
    if manifest is None:
        raise CheckpointCorruptError(f"{path} has no {MANIFEST_NAME}", path=path)
    if marker != commit_marker(manifest):
        raise CheckpointCorruptError(
            f"the manifest of {path} is not the one that was committed", path=path
        )
    info = read_manifest(manifest, path)
    for file, entry in info.files.items():
        if file not in sizes:
            raise CheckpointCorruptError(
                f"{file} of {path} is missing, or not a regular file", path=path
            )
        if sizes[file] != entry.size_bytes:
            raise CheckpointCorruptError(
                f"{file} of {path} has {sizes[file]} bytes, expected {entry.size_bytes}",
                path=path,
            )
    return info


def _removed(storage: CheckpointStorage, name: str) -> bool:
    """Whether its writer has removed a checkpoint since it was inspected: the marker goes first."""
    if name not in storage.names():
        return True
    try:
        storage.sizes(name)
        return storage.read(name, COMMIT_NAME, COMMIT_MAX_BYTES) is None
    except CheckpointError:
        return False
