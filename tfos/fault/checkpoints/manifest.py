"""Say what a checkpoint holds: its record, its directory's name, its manifest. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tfos.errors import CheckpointCorruptError, CheckpointError
from tfos.read_plan import FeedPosition

__all__ = [
    "COMMIT_MAX_BYTES",
    "COMMIT_NAME",
    "MANIFEST_MAX_BYTES",
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

COMMIT_MAX_BYTES: Final = 1 << 10
"""More than any commit marker has."""
MANIFEST_MAX_BYTES: Final = 16 << 20
"""The largest manifest: some 100,000 files."""

_FORMAT: Final = 1
# What a checkpoint claims may not come near what int64 holds, nor be what no training reaches.
_MAX_COUNT: Final = 10**15
_MAX_GENERATION: Final = 10**6
_MAX_EPOCH: Final = 10**8
_MAX_FEED: Final = 10**6
_MAX_SIZE_BYTES: Final = 1 << 60
_MAX_CREATED_S: Final = 1e11
_MAX_TEXT: Final = 1000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
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
    made_by
        Architecture and versions of the program that took it, as text by name; empty where unknown.

    Raises
    ------
    ValueError
        If a number is outside the bounds of what can be kept.
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
    made_by: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("step", self.step, _MAX_COUNT)
        _check("generation", self.generation, _MAX_GENERATION)
        _check("sequence", self.sequence, _MAX_COUNT)
        if not (math.isfinite(self.created) and 0 <= self.created <= _MAX_CREATED_S):
            raise ValueError(f"created is {self.created}: it must be seconds since the epoch")
        if len(self.run_id) > _MAX_TEXT:
            raise ValueError(f"run_id has {len(self.run_id)} characters: {_MAX_TEXT} at most")
        for feed, position in self.positions.items():
            _check("feed index", feed, _MAX_FEED)
            _check(f"epoch of feed {feed}", position.epoch, _MAX_EPOCH)
            _check(f"row of feed {feed}", position.row, _MAX_COUNT)
        for name, entry in self.files.items():
            _check(f"size of {name}", entry.size_bytes, _MAX_SIZE_BYTES)

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
    """Return the manifest's content.

    Raises
    ------
    TypeError, ValueError
        If the metadata is not JSON, or there is too much of it.
    """
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
        "made_by": dict(info.made_by),
    }
    content = json.dumps(document, indent=1).encode() + b"\n"
    if len(content) > MANIFEST_MAX_BYTES:
        raise ValueError(
            f"the manifest of step {info.step} has {len(content):,} bytes, {MANIFEST_MAX_BYTES:,} "
            "at most: keep large values in a file of the checkpoint, not in its metadata"
        )
    return content


def read_manifest(content: bytes, path: str) -> CheckpointInfo:
    """Read back what `write_manifest` wrote.

    Raises
    ------
    CheckpointCorruptError
        If it is not a manifest, holds a number outside its bounds, names no file or one outside
        the checkpoint.
    CheckpointError
        If a newer tfos wrote it: what it means is unknown, so it must not be passed over.
    """
    try:
        data = json.loads(content)
        written = _whole(data["format"])
        if written <= _FORMAT:
            if not data["files"]:
                raise ValueError("it names no file")
            return CheckpointInfo(
                path=path,
                step=_whole(data["step"]),
                generation=_whole(data["generation"]),
                run_id=_text(data["run_id"]),
                sequence=_whole(data["sequence"]),
                created=float(data["created"]),
                positions={int(k): _position(v) for k, v in data["positions"].items()},
                files={_inside(k): _entry(v) for k, v in data["files"].items()},
                metadata=dict(data["metadata"]),
                made_by={_text(k): _text(v) for k, v in data.get("made_by", {}).items()},
            )
    except (
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CheckpointCorruptError(
            f"the manifest of {path} cannot be read: {type(error).__name__}: {error}", path=path
        ) from error
    raise CheckpointError(
        f"{path} has format {written}, this tfos reads up to {_FORMAT}: use the newer tfos that "
        "wrote it, or another --checkpoint-dir"
    )


def _position(value: Any) -> FeedPosition:
    epoch, row = value
    return FeedPosition(_whole(epoch), _whole(row))


def _entry(value: Any) -> FileEntry:
    if _SHA256.fullmatch(value["sha256"]) is None:
        raise ValueError("a SHA-256 is not 64 hexadecimal digits")
    return FileEntry(_whole(value["size_bytes"]), value["sha256"])


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is no whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _check(what: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{what} is {value}: it must be 0 or more, and {most} at most")


def _inside(name: str) -> str:
    # A manifest comes from shared storage: its names must not reach out of a download directory.
    if name.startswith("/") or "\\" in name or any(p in ("", ".", "..") for p in name.split("/")):
        raise ValueError(f"{name!r} is not a path inside the checkpoint")
    return name
