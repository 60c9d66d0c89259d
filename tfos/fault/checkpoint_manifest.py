"""Say what a checkpoint holds: its record, its directory's name, its manifest. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tfos.errors import CheckpointCorruptError, CheckpointError
from tfos.read_plan import FeedPosition

__all__ = [
    "COMMIT_NAME",
    "MANIFEST_NAME",
    "CheckpointInfo",
    "FileEntry",
    "checkpoint_name",
    "commit_marker",
    "is_checkpoint_name",
    "read_manifest",
    "write_manifest",
]

MANIFEST_NAME: Final = "MANIFEST.json"
"""The manifest's file name, written after every file it lists."""
COMMIT_NAME: Final = "COMMITTED"
"""The commit marker's file name, written last: it holds the manifest's checksum."""

_FORMAT: Final = 1
_NAME: Final = re.compile(r"ckpt-\d{12,}-g\d+(-r\d+)?")


class FileEntry(NamedTuple):
    """A file of a checkpoint."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class CheckpointInfo:
    """One complete checkpoint.

    Parameters
    ----------
    path
        Directory or URL it lies in; its last part is its name in the store.
    step
        Training steps completed when it was taken.
    generation
        The incarnation of the training cluster that took it.
    run_id
        The run that took it; empty where there was none.
    sequence
        Counts up through a store: the highest was saved last, whatever its step.
    created
        Seconds since the epoch on the host that took it.
    positions
        How far each feed had been read, by feed index.
    files
        Its files, by path relative to `path`.
    metadata
        What else its writer wanted kept, JSON values only.
    """

    path: str
    step: int
    generation: int
    run_id: str
    sequence: int
    created: float
    positions: Mapping[int, FeedPosition]
    files: Mapping[str, FileEntry]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def size_bytes(self) -> int:
        """The size of its files."""
        return sum(entry.size_bytes for entry in self.files.values())


def checkpoint_name(step: int, generation: int, revision: int = 1) -> str:
    """Return a checkpoint's directory name; a step saved again gets the next revision."""
    name = f"ckpt-{step:012d}-g{generation}"
    return name if revision == 1 else f"{name}-r{revision}"


def is_checkpoint_name(name: str) -> bool:
    """Say whether a directory of that name holds a checkpoint, complete or not."""
    return _NAME.fullmatch(name) is not None


def commit_marker(manifest: bytes) -> bytes:
    """Return the commit marker's content for a manifest."""
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def write_manifest(info: CheckpointInfo) -> bytes:
    """Return the manifest's content; raises TypeError if the metadata is not JSON."""
    document = {
        "format": _FORMAT,
        "step": info.step,
        "generation": info.generation,
        "run_id": info.run_id,
        "sequence": info.sequence,
        "created": info.created,
        "positions": {str(k): list(v) for k, v in sorted(info.positions.items())},
        "files": {
            name: {"size_bytes": entry.size_bytes, "sha256": entry.sha256}
            for name, entry in sorted(info.files.items())
        },
        "metadata": dict(info.metadata),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def read_manifest(content: bytes, path: str) -> CheckpointInfo:
    """Read back what `write_manifest` wrote.

    Raises
    ------
    CheckpointCorruptError
        If it is not a manifest, or names a file outside the checkpoint.
    CheckpointError
        If a newer tfos wrote it: what it means is unknown, so it must not be passed over.
    """
    try:
        data = json.loads(content)
        written = int(data["format"])
        if written <= _FORMAT:
            return CheckpointInfo(
                path=path,
                step=int(data["step"]),
                generation=int(data["generation"]),
                run_id=str(data["run_id"]),
                sequence=int(data["sequence"]),
                created=float(data["created"]),
                positions={int(k): _position(v) for k, v in data["positions"].items()},
                files={_inside(k): _entry(v) for k, v in data["files"].items()},
                metadata=dict(data["metadata"]),
            )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointCorruptError(
            f"the manifest of {path} cannot be read: {type(error).__name__}: {error}", path=path
        ) from error
    raise CheckpointError(
        f"{path} has format {written}, this tfos reads up to {_FORMAT}: use the newer tfos that "
        "wrote it, or another --checkpoint-dir"
    )


def _position(value: Any) -> FeedPosition:
    epoch, row = value
    return FeedPosition(int(epoch), int(row))


def _entry(value: Any) -> FileEntry:
    return FileEntry(int(value["size_bytes"]), str(value["sha256"]))


def _inside(name: str) -> str:
    # A manifest comes from shared storage: its names must not reach out of a download directory.
    if name.startswith("/") or "\\" in name or any(p in ("", ".", "..") for p in name.split("/")):
        raise ValueError(f"{name!r} is not a path inside the checkpoint")
    return name
