"""Turn a directory that was filled into a complete checkpoint, and remove what it replaces."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from tfos.errors import CheckpointError, CheckpointFencedError
from tfos.fault.checkpoints.lease import refuse_if_taken_over
from tfos.fault.checkpoints.manifest import (
    COMMIT_NAME,
    MANIFEST_NAME,
    CheckpointInfo,
    FileEntry,
    commit_marker,
    write_manifest,
)
from tfos.fault.checkpoints.scan import StorageScan, scan_storage
from tfos.fault.checkpoints.storage import CheckpointStorage
from tfos.files.durable import (
    explained,
    read_chunks,
    sha256_of,
    tree_files,
    write_durably,
)

__all__ = ["commit_staged", "remove_or_warn", "retain", "told"]

_logger = logging.getLogger(__name__)


def commit_staged(
    storage: CheckpointStorage, staging: str, draft: CheckpointInfo, *, tidy: bool
) -> CheckpointInfo:
    """Bring a staged directory into the storage as a checkpoint, its commit marker last.

    Parameters
    ----------
    storage
        Where to.
    staging
        The directory, from `CheckpointStorage.staging`.
    draft
        What is known of it but its path, sequence and files.
    tidy
        Remove first what interrupted uploads left.

    Raises
    ------
    CheckpointError
        If it cannot be written, holds no files, or if a later generation of its run has saved
        before the marker was due. It is absent then.
    """
    before = scan_storage(storage)
    _refuse_if_over(storage, draft, before)
    if tidy:
        remove_or_warn(storage, before.unfinished)
    name = before.free_name(draft.step, draft.generation)
    try:
        draft = replace(draft, path=storage.path(name), sequence=before.next_sequence())
    except ValueError as error:
        newest = max(before.complete, key=lambda info: info.sequence)
        raise CheckpointError(
            f"no checkpoint can follow {newest.path}, whose manifest claims the largest sequence "
            "there can be: remove it"
        ) from error
    with told(storage, draft.step):
        info = _seal(staging, draft)
    # An upload takes time: another generation may have begun to save meanwhile.
    storage.publish(
        staging, name, COMMIT_NAME, lambda: _refuse_if_over(storage, draft, scan_storage(storage))
    )
    return info


def retain(storage: CheckpointStorage, saved: CheckpointInfo, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints, and what `saved` replaced.

    Damaged ones go once enough are whole. What cannot be removed is only warned of.
    """
    try:
        scan = scan_storage(storage)
    except CheckpointError as error:
        # This one is complete: failing now would make its writer believe otherwise.
        _logger.warning("old checkpoints stay until the next save: %s", error)
        return
    kept = 0
    for info in scan.complete:
        again = (info.step, info.generation) == (saved.step, saved.generation)
        if kept == keep or (again and info.name != saved.name):
            remove_or_warn(storage, [info.name])
        else:
            kept += 1
    if kept == keep:
        for name, why in scan.damaged.items():
            _logger.warning("removing a damaged checkpoint: %s", why)
            remove_or_warn(storage, [name])


def remove_or_warn(storage: CheckpointStorage, names: Iterable[str]) -> None:
    """Remove entries; warn of those that cannot be."""
    for name in names:
        try:
            storage.remove(name, COMMIT_NAME)
        except CheckpointError as error:
            _logger.warning("%s stays: %s", storage.path(name), error)


def told(storage: CheckpointStorage, step: int) -> AbstractContextManager[None]:
    """Turn an OSError about the staging directory into a CheckpointError that names the step."""
    path, option = storage.staging_place
    return explained(f"the checkpoint of step {step} was not written", path, option)


def _refuse_if_over(storage: CheckpointStorage, draft: CheckpointInfo, scan: StorageScan) -> None:
    refuse_if_taken_over(storage, draft.run_id)
    newest = scan.newest_generation(draft.run_id)
    if draft.generation < newest:
        raise CheckpointFencedError(
            f"generation {draft.generation} is over: {newest} is live and has saved to "
            f"{storage.location}; this process should have ended"
        )


def _seal(staging: str, draft: CheckpointInfo) -> CheckpointInfo:
    """Add the manifest and the commit marker to a staged checkpoint."""
    files = tree_files(staging)
    if not files or not {MANIFEST_NAME, COMMIT_NAME}.isdisjoint(files):
        raise CheckpointError(
            f"the checkpoint of step {draft.step} was not written: expected files in the given "
            f"directory, none of them {MANIFEST_NAME} or {COMMIT_NAME}, found {files or 'none'}"
        )
    entries = {}
    for file in files:
        path = os.path.join(staging, *file.split("/"))
        with open(path, "rb") as source:
            entries[file] = FileEntry(os.path.getsize(path), sha256_of(read_chunks(source)))
    info = replace(draft, files=entries)
    manifest = write_manifest(info)
    write_durably(os.path.join(staging, MANIFEST_NAME), manifest)
    write_durably(os.path.join(staging, COMMIT_NAME), commit_marker(manifest))
    return info
