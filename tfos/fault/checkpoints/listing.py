"""List for people and programs what lies under a checkpoint directory: complete or not, and why."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from tfos.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointUnreadableError,
    ConfigError,
)
from tfos.fault.checkpoints.manifest import (
    COMMIT_NAME,
    MANIFEST_MAX_BYTES,
    MANIFEST_NAME,
    CheckpointInfo,
    is_checkpoint_name,
    read_manifest,
)
from tfos.fault.checkpoints.place import open_storage
from tfos.fault.checkpoints.scan import scan_storage
from tfos.fault.checkpoints.storage import STAGING, CheckpointStorage
from tfos.files.durable import sha256_of
from tfos.files.open import open_file_system
from tfos.files.remote import told_by_client

__all__ = ["CheckpointState", "ListedCheckpoint", "list_checkpoints", "verify_checkpoints"]

_logger = logging.getLogger(__name__)

_OPTION: Final = "URL"
_NUMBERS: Final = re.compile(r"ckpt-(\d+)-g(\d+)")
_UNFINISHED: Final = "a save is under way, or was interrupted: the job's next run removes it"


class CheckpointState(Enum):
    """What became of a checkpoint."""

    COMPLETE = "complete"
    """Committed, and every file there in its size."""
    DAMAGED = "damaged"
    """Committed, but no longer what was committed, or not readable: a resume passes it over."""
    UNFINISHED = "unfinished"
    """Not committed: to a resume it is not there."""


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint as it lies in a storage.

    Parameters
    ----------
    job, path
        Whose it is, and its directory or URL.
    state, why
        What became of it; for other than complete ones, why.
    step, generation
        None where its name does not tell.
    size_bytes, files
        Of what lies there, manifest and marker left out.
    run_id, created
        None where its manifest cannot be read; `created` in seconds since the epoch.
    resumes
        Whether the job's next run would resume from it.
    verified
        Whether the checksums of its files were compared.
    """

    job: str
    path: str
    state: CheckpointState
    why: str
    step: int | None
    generation: int | None
    size_bytes: int
    files: int
    run_id: str | None
    created: float | None
    resumes: bool = False
    verified: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**self.__dict__, "state": self.state.value}


def list_checkpoints(
    url: str, job: str | None = None, warn: Callable[[str], None] = _logger.warning
) -> list[ListedCheckpoint]:
    """List every job's checkpoints under a directory or URL, or one job's, the newest first.

    Runs anywhere and changes nothing; blocks for as long as the storage takes. Damage is found by
    manifests and sizes; `verify_checkpoints` compares checksums besides.

    Parameters
    ----------
    url, job
        Where, and whose; None for everybody's.
    warn
        Called with a line about each job that is left out because it cannot be read, where there
        are others.

    Raises
    ------
    ConfigError
        If the URL cannot be used, nothing is there, or the job has nothing there.
    CheckpointError
        If a job cannot be read, or a newer tfos wrote to it, and there is no other to list.
    """
    listed: list[ListedCheckpoint] = []
    left_out: dict[str, CheckpointError] = {}
    for name in _jobs(url, job):
        try:
            listed += _list_job(url, name)
        except CheckpointError as error:
            left_out[name] = error
    # Else nothing found would read as nothing there.
    if left_out and not listed:
        raise next(iter(left_out.values()))
    for name, why in left_out.items():
        warn(f"job {name} is left out: {why}")
    return listed


def verify_checkpoints(
    url: str,
    listed: list[ListedCheckpoint],
    on_bytes: Callable[[int], None] = lambda count: None,
    warn: Callable[[str], None] = _logger.warning,
) -> list[ListedCheckpoint]:
    """Read every complete checkpoint and compare checksums; return the list as it is known then.

    Parameters
    ----------
    url, listed
        As given to and returned by `list_checkpoints`.
    on_bytes
        Called with the number of bytes of each piece read.
    warn
        Called with a line about each checkpoint that cannot be read, where others can.

    Raises
    ------
    CheckpointError
        If none of them can be read.
    """
    checked = []
    unread: list[CheckpointError] = []
    for entry in listed:
        if entry.state is CheckpointState.COMPLETE:
            storage = open_storage(url, entry.job, _OPTION)
            try:
                why = _wrong_content(storage, entry.path.rpartition("/")[2], on_bytes)
            except CheckpointError as error:
                unread.append(error)
            else:
                state = CheckpointState.DAMAGED if why else CheckpointState.COMPLETE
                entry = replace(entry, state=state, why=why, verified=True)
        checked.append(entry)
    if unread and not any(entry.verified for entry in checked):
        raise unread[0]
    for unreadable in unread:
        warn(f"not verified: {unreadable}")
    return _resuming(checked)


def _jobs(url: str, job: str | None) -> list[str]:
    file_system, root, _ = open_file_system(url, _OPTION)
    try:
        found = file_system.ls(root, detail=True)
    except FileNotFoundError as error:
        raise ConfigError(f"there is nothing at {url}") from error
    except Exception as error:  # clients of object stores raise types of their own
        raise CheckpointError(f"{url} cannot be listed: {told_by_client(error)}") from error
    # An object named `root/` is how consoles and Hadoop mark an empty folder on an object store.
    if any(entry["name"] == root.rstrip("/") and entry["type"] != "directory" for entry in found):
        raise ConfigError(f"{url} is a file, not a directory of checkpoints")
    names = sorted(
        entry["name"].rstrip("/").rpartition("/")[2]
        for entry in found
        if entry["type"] == "directory"
    )
    if any(is_checkpoint_name(name) for name in names):
        parent, _, own = url.rstrip("/").rpartition("/")
        raise ConfigError(
            f"{url} is one job's own directory: use `tfos checkpoints {parent or '.'} --name {own}`"
        )
    if job is None:
        return names
    if job not in names:
        raise ConfigError(f"job {job!r} has nothing at {url}; found {', '.join(names) or 'no job'}")
    return [job]


def _list_job(url: str, job: str) -> list[ListedCheckpoint]:
    storage = open_storage(url, job, _OPTION)
    scan = scan_storage(storage)
    listed = [
        _described(storage, job, info.name, CheckpointState.COMPLETE, "", info)
        for info in scan.complete
    ]
    for name, error in scan.unusable.items():
        info = _manifest_of(storage, name)
        listed.append(_described(storage, job, name, CheckpointState.DAMAGED, str(error), info))
    half = [*scan.unfinished, *(name for name in scan.names if name.startswith(STAGING))]
    listed += [
        _described(storage, job, name, CheckpointState.UNFINISHED, _UNFINISHED, None)
        for name in sorted(half)
    ]
    return _resuming(listed)


def _described(
    storage: CheckpointStorage,
    job: str,
    name: str,
    state: CheckpointState,
    why: str,
    info: CheckpointInfo | None,
) -> ListedCheckpoint:
    numbers = _NUMBERS.match(name)
    if info is not None and state is CheckpointState.COMPLETE:
        sizes = {file: entry.size_bytes for file, entry in info.files.items()}
    else:
        sizes = _sizes_of(storage, name)
        for own in (MANIFEST_NAME, COMMIT_NAME):
            sizes.pop(own, None)
    return ListedCheckpoint(
        job=job,
        path=storage.path(name),
        state=state,
        why=why,
        step=int(numbers[1]) if numbers else None,
        generation=int(numbers[2]) if numbers else None,
        size_bytes=sum(sizes.values()),
        files=len(sizes),
        run_id=info.run_id if info else None,
        created=info.created if info else None,
    )


def _manifest_of(storage: CheckpointStorage, name: str) -> CheckpointInfo | None:
    try:
        content = storage.read(name, MANIFEST_NAME, MANIFEST_MAX_BYTES)
        return None if content is None else read_manifest(content, storage.path(name))
    except CheckpointError:
        return None


def _sizes_of(storage: CheckpointStorage, name: str) -> dict[str, int]:
    try:
        return storage.sizes(name)
    except (CheckpointCorruptError, CheckpointUnreadableError):
        return {}


def _wrong_content(storage: CheckpointStorage, name: str, on_bytes: Callable[[int], None]) -> str:
    """Say which file of a checkpoint is not what was saved; nothing when all are."""
    info = _manifest_of(storage, name)
    if info is None:
        return "it was removed meanwhile"

    def read(file: str) -> Iterator[bytes]:
        for chunk in storage.chunks(name, file):
            on_bytes(len(chunk))
            yield chunk

    for file, entry in info.files.items():
        found = sha256_of(read(file))
        if found != entry.sha256:
            return (
                f"{file} of {info.path} is not what was saved: SHA-256 {found}, expected "
                f"{entry.sha256}"
            )
    return ""


def _resuming(listed: list[ListedCheckpoint]) -> list[ListedCheckpoint]:
    """Mark each job's first complete one, which is the newest."""
    seen: set[str] = set()
    marked = []
    for entry in listed:
        first = entry.state is CheckpointState.COMPLETE and entry.job not in seen
        seen |= {entry.job} if first else set()
        marked.append(replace(entry, resumes=first))
    return marked
