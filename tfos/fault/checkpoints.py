"""Keep a job's checkpoints: each complete or absent, the newest verified, N of them retained."""

from __future__ import annotations

import errno
import logging
import operator
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

from tfos.errors import CheckpointCorruptError, CheckpointError, ConfigError
from tfos.fault.checkpoint_manifest import (
    COMMIT_NAME,
    MANIFEST_NAME,
    CheckpointInfo,
    FileEntry,
    commit_marker,
    is_checkpoint_name,
    write_manifest,
)
from tfos.fault.checkpoint_scan import StorageScan, scan_storage
from tfos.fault.checkpoint_storage import open_storage, sha256_of
from tfos.fault.durable_files import explained, out_of_space, tree_files, write_durably
from tfos.read_plan import FeedPosition

__all__ = ["CheckpointInfo", "CheckpointStore", "LoadedCheckpoint"]

_logger = logging.getLogger(__name__)

_OPTION: Final = "--checkpoint-dir"
_JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SAVE_WAIT_S: Final = 600.0
_PROBE_TIMEOUT_S: Final = 20.0


class LoadedCheckpoint(NamedTuple):
    """A checkpoint whose files are at hand, their checksums verified."""

    info: CheckpointInfo
    path: str


class CheckpointStore:
    """The checkpoints of one job under one directory or URL.

    Runs anywhere; thread-safe. One process at a time saves (the chief); any number read. A process
    that dies while saving, at any point, leaves what `latest` ignores and the next save removes.

    The newest checkpoint is the one saved last, not the one of the highest step: a run that went
    back to an earlier step goes on from there.

    Parameters
    ----------
    url
        Directory, or URL that fsspec knows (file, hdfs, s3, memory, ...). Nothing is touched yet.
    job_name
        The job they belong to: a subdirectory.
    keep
        Complete checkpoints kept, 1 or more.
    run_id
        The run that saves, for its fence; empty for none.

    Raises
    ------
    ConfigError
        If the URL's scheme is unknown or its client not installed, or the name cannot be used.
    """

    def __init__(self, url: str, job_name: str, *, keep: int = 3, run_id: str = "") -> None:
        if keep < 1:
            raise ConfigError(f"{keep} checkpoints are to be kept: it must be 1 or more")
        if _JOB_NAME.fullmatch(job_name) is None:
            raise ConfigError(f"job name {job_name!r} cannot name a directory of checkpoints")
        self._storage = open_storage(url, job_name)
        self._keep = keep
        self._run_id = run_id
        self._writing = threading.Lock()

    @property
    def location(self) -> str:
        """The directory or URL of this job's checkpoints."""
        return self._storage.location

    def save(
        self,
        step: int,
        generation: int,
        write: Callable[[str], None],
        positions: Mapping[int, FeedPosition | Sequence[int]] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckpointInfo:
        """Write a checkpoint and return it once it is complete and on disk.

        Blocks until then, and while another thread saves. Removes what an interrupted save left
        and, once this one is complete, the checkpoints beyond `keep`.

        Parameters
        ----------
        step
            Training steps completed, 0 or more. The same step may be saved again: the new
            checkpoint takes the place of the old one once it is complete.
        generation
            The incarnation of the training cluster that saves.
        write
            Called with an empty local directory to fill. What it raises passes through, but an
            OSError or a full disk becomes CheckpointError.
        positions
            How far each feed has been read: feed index -> (epoch, row).
        metadata
            Anything else to keep, JSON values only.

        Raises
        ------
        CheckpointError
            If it cannot be written: no space, no permission, nothing written; or if a later
            generation of this run has saved already.
        TypeError, ValueError
            If an argument is not of the kind asked for.
        """
        draft = CheckpointInfo(
            path="",
            step=operator.index(step),
            generation=operator.index(generation),
            run_id=self._run_id,
            sequence=0,
            created=time.time(),
            positions={int(k): FeedPosition(*v) for k, v in (positions or {}).items()},
            files={},
            metadata=dict(metadata or {}),
        )
        if draft.step < 0:
            raise ValueError(f"step is {step}: it must be 0 or more")
        write_manifest(draft)  # what is not JSON is told before the work, not after
        with self._exclusive():
            before = scan_storage(self._storage)
            self._refuse_if_over(draft.generation, before)
            self._remove_unfinished(before)
            with self._storage.staging() as staging:
                self._call_write(write, staging, draft.step)
                # Writing takes time: another generation may have begun to save meanwhile.
                self._refuse_if_over(draft.generation, scan_storage(self._storage))
                name = before.free_name(draft.step, draft.generation)
                draft = replace(
                    draft, path=self._storage.path(name), sequence=before.next_sequence()
                )
                with self._told(draft.step):
                    info = _seal(staging, draft)
                self._storage.publish(staging, name, COMMIT_NAME)
            self._retain(info)
        return info

    def latest(self) -> CheckpointInfo | None:
        """Return the newest complete checkpoint, None without one.

        Complete means: committed, its manifest whole, every file there in its size. Checksums are
        verified when it is loaded. Damaged ones are passed over with a warning that says why.

        Raises
        ------
        CheckpointError
            If the storage cannot be read, or holds checkpoints of a newer tfos.
        """
        complete = self.list()
        return complete[0] if complete else None

    def list(self) -> list[CheckpointInfo]:
        """Return the complete checkpoints, newest first; otherwise as `latest`."""
        scan = scan_storage(self._storage)
        for error in scan.damaged.values():
            _logger.warning("passing over a damaged checkpoint: %s", error)
        return scan.complete

    def load(self, info: CheckpointInfo, directory: str) -> str:
        """Bring a checkpoint's files to this host and verify their checksums.

        Parameters
        ----------
        info
            Which one.
        directory
            Local directory that downloads go to, in a subdirectory of the checkpoint's name. One
            that is on a local file system already is used in place instead: read it only, and
            before `keep` further saves.

        Returns
        -------
        str
            The local directory of its files.

        Raises
        ------
        CheckpointCorruptError
            If a file is missing or its content is not what was saved.
        CheckpointError
            If it cannot be read, or `directory` has no room.
        """
        path = self._storage.fetch(info.name, info.files, directory)
        for file, entry in info.files.items():
            try:
                found = sha256_of(os.path.join(path, *file.split("/")))
            except FileNotFoundError as error:
                raise CheckpointCorruptError(
                    f"{info.path} lost its file {file} after it was listed", path=info.path
                ) from error
            except OSError as error:
                raise CheckpointError(f"{file} of {info.path} cannot be read: {error}") from error
            if found != entry.sha256:
                raise CheckpointCorruptError(
                    f"{file} of {info.path} is not what was saved: SHA-256 {found}, expected "
                    f"{entry.sha256}",
                    path=info.path,
                )
        return path

    def latest_loaded(self, directory: str) -> LoadedCheckpoint | None:
        """Load the newest checkpoint that verifies, going back past damaged ones with a warning.

        Returns
        -------
        LoadedCheckpoint or None
            None when there has never been a complete checkpoint.

        Raises
        ------
        CheckpointCorruptError
            If there are checkpoints and none of them is whole: starting over is for the user to
            decide.
        CheckpointError
            If the storage cannot be read; that is no reason to go back further.
        """
        scan = scan_storage(self._storage)
        failed = [*scan.damaged.values()]
        for error in failed:
            _logger.warning("passing over a damaged checkpoint: %s", error)
        for info in scan.complete:
            try:
                return LoadedCheckpoint(info, self.load(info, directory))
            except CheckpointCorruptError as error:
                _logger.warning("passing over a damaged checkpoint: %s", error)
                failed.append(error)
        if not failed:
            return None
        raise CheckpointCorruptError(
            f"none of the {len(failed)} checkpoints in {self.location} is whole ({failed[0]}); "
            "run with --fresh to remove them and start over",
            path=self.location,
        ) from failed[0]

    def clean(self) -> None:
        """Remove what interrupted saves left. Only while no other process saves.

        Raises
        ------
        CheckpointError
            If the storage cannot be read; what cannot be removed is only warned of.
        """
        with self._exclusive():
            self._remove_unfinished(scan_storage(self._storage))

    def remove_all(self) -> None:
        """Remove every checkpoint of this job, for a run that starts over. Idempotent.

        Raises
        ------
        CheckpointError
            If one cannot be removed.
        """
        with self._exclusive():
            for name in self._storage.names():
                if is_checkpoint_name(name):
                    self._storage.remove(name, COMMIT_NAME)
            for name in self._storage.leftovers():
                self._storage.remove(name, COMMIT_NAME)

    def check_writable(self) -> None:
        """Make the directory if need be, and write and remove a file in it.

        Blocks for at most 20 s: to be asked before a run costs anything.

        Raises
        ------
        CheckpointError
            If that fails or does not end; names the directory and the option.
        """
        result: Future[None] = Future()

        def probe() -> None:
            try:
                result.set_result(self._storage.probe())
            except BaseException as error:
                result.set_exception(error)

        # A thread of its own: a network file system that hangs cannot be interrupted.
        threading.Thread(target=probe, name="tfos-checkpoint-probe", daemon=True).start()
        try:
            result.result(_PROBE_TIMEOUT_S)
        except FutureTimeoutError as error:
            raise CheckpointError(
                f"checkpoints cannot be kept: {self.location} did not answer within "
                f"{_PROBE_TIMEOUT_S:g} s; let {_OPTION} name another place"
            ) from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=_SAVE_WAIT_S):
            raise CheckpointError(
                f"another save to {self.location} has not ended within {_SAVE_WAIT_S:g} s"
            )
        try:
            yield
        finally:
            self._writing.release()

    def _remove_unfinished(self, scan: StorageScan) -> None:
        for name in (*scan.unfinished, *self._storage.leftovers()):
            self._remove_or_warn(name)

    def _remove_or_warn(self, name: str) -> None:
        try:
            self._storage.remove(name, COMMIT_NAME)
        except CheckpointError as error:
            _logger.warning("%s stays: %s", self._storage.path(name), error)

    def _refuse_if_over(self, generation: int, scan: StorageScan) -> None:
        newest = scan.newest_generation(self._run_id)
        if generation < newest:
            raise CheckpointError(
                f"generation {generation} is over: {newest} is live and has saved to "
                f"{self.location}; this process should have ended"
            )

    def _told(self, step: int) -> AbstractContextManager[None]:
        path, option = self._storage.staging_place
        return explained(f"the checkpoint of step {step} was not written", path, option)

    def _call_write(self, write: Callable[[str], None], staging: str, step: int) -> None:
        with self._told(step):
            try:
                write(staging)
            except OSError:
                raise
            except Exception as error:
                if not out_of_space(error, staging):
                    raise
                raise OSError(errno.ENOSPC, str(error)) from error

    def _retain(self, saved: CheckpointInfo) -> None:
        try:
            scan = scan_storage(self._storage)
        except CheckpointError as error:
            # This one is complete: failing now would make its writer believe otherwise.
            _logger.warning("old checkpoints stay until the next save: %s", error)
            return
        kept = 0
        for info in scan.complete:
            again = (info.step, info.generation) == (saved.step, saved.generation)
            if kept == self._keep or (again and info.name != saved.name):
                self._remove_or_warn(info.name)
            else:
                kept += 1
        if kept == self._keep:
            for name, why in scan.damaged.items():
                _logger.warning("removing a damaged checkpoint: %s", why)
                self._remove_or_warn(name)


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
        entries[file] = FileEntry(os.path.getsize(path), sha256_of(path))
    info = replace(draft, files=entries)
    manifest = write_manifest(info)
    write_durably(os.path.join(staging, MANIFEST_NAME), manifest)
    write_durably(os.path.join(staging, COMMIT_NAME), commit_marker(manifest))
    return info
