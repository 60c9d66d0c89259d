"""Keep a job's checkpoints: each complete or absent, the newest verified, N of them retained."""

from __future__ import annotations

import errno
import logging
import operator
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from tfos.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointUnreadableError,
    ConfigError,
)
from tfos.fault.checkpoints.commit import commit_staged, remove_or_warn, retain, told
from tfos.fault.checkpoints.lease import CheckpointLease
from tfos.fault.checkpoints.manifest import (
    COMMIT_NAME,
    CheckpointInfo,
    is_checkpoint_name,
    write_manifest,
)
from tfos.fault.checkpoints.place import open_storage
from tfos.fault.checkpoints.report import keep_report
from tfos.fault.checkpoints.scan import scan_storage
from tfos.files.durable import (
    NotAFileError,
    open_regular,
    out_of_space,
    read_chunks,
    sha256_of,
)
from tfos.read_plan import FeedPosition
from tfos.run_holder import holder_here

__all__ = ["SAVE_WAIT_S", "CheckpointInfo", "CheckpointStore", "Judgement", "LoadedCheckpoint"]

SAVE_WAIT_S: Final = 1800.0
"""Longest wait for a save under way: tens of gigabytes on their way to an object store."""

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_OPTION: Final = "--checkpoint-dir"
_JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PROBE_TIMEOUT_S: Final = 20.0
_SCAN_TIMEOUT_S: Final = 120.0


class LoadedCheckpoint(NamedTuple):
    """A checkpoint whose files are at hand, their checksums verified."""

    info: CheckpointInfo
    path: str


class Judgement(NamedTuple):
    """What a resume would meet.

    Parameters
    ----------
    latest
        The newest complete checkpoint, None without one.
    passed_over
        The names of those that cannot be used, for the stores of a run's other processes: each is
        warned of once.
    """

    latest: CheckpointInfo | None
    passed_over: tuple[str, ...]


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
    made_by
        What the checkpoints it saves say of their writer: see `CheckpointInfo`.
    passed_over
        Names of checkpoints that cannot be used, of which `judge` has warned already.

    Raises
    ------
    ConfigError
        If the URL's scheme is unknown or its client not installed, or the name cannot be used.
    """

    def __init__(
        self,
        url: str,
        job_name: str,
        *,
        keep: int = 3,
        run_id: str = "",
        made_by: Mapping[str, str] | None = None,
        passed_over: Iterable[str] = (),
    ) -> None:
        if keep < 1:
            raise ConfigError(f"{keep} checkpoints are to be kept: it must be 1 or more")
        if _JOB_NAME.fullmatch(job_name) is None:
            raise ConfigError(f"job name {job_name!r} cannot name a directory of checkpoints")
        self._storage = open_storage(url, job_name)
        self._keep = keep
        self._run_id = run_id
        self._made_by = dict(made_by or {})
        self._passed_over = set(passed_over)
        # Held from the beginning of a save to its end in another thread.
        self._writing = threading.Lock()
        self._saved = False

    @property
    def location(self) -> str:
        """The directory or URL of this job's checkpoints."""
        return self._storage.location

    def begin_save(
        self,
        step: int,
        generation: int,
        write: Callable[[str], None],
        positions: Mapping[int, FeedPosition | Sequence[int]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        on_complete: Callable[[CheckpointInfo], None] = lambda info: None,
    ) -> Future[CheckpointInfo]:
        """Have `write` fill a local directory, and make a checkpoint of it in the background.

        Blocks while `write` runs and while another save of this store is under way, for at most
        30 minutes. Checksums, upload, commit marker and the removal of checkpoints beyond `keep`
        follow in a thread that does not hold the process: wait for the future before it ends. The
        first save also removes what interrupted ones left.

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
        on_complete
            Called from the background thread, before the future is done.

        Returns
        -------
        Future
            The checkpoint, once it is complete and on disk. It fails with CheckpointError if it
            could not be written (no space, no permission, nothing written) or if a later
            generation of this run has saved already.

        Raises
        ------
        CheckpointError
            If the directory cannot be filled, or another save does not end.
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
            made_by=self._made_by,
        )
        write_manifest(draft)  # what is not JSON is told before the work, not after
        with ExitStack() as stack:
            stack.enter_context(self._exclusive())
            # What a process that died here left takes room; later leftovers would be another's.
            first = not self._saved
            if first:
                remove_or_warn(self._storage, self._storage.leftovers())
            staging = stack.enter_context(self._storage.staging())
            self._call_write(write, staging, draft.step)
            still_open = stack.pop_all()

        def complete() -> CheckpointInfo:
            with still_open:
                info = commit_staged(self._storage, staging, draft, tidy=first)
                self._saved = True
                retain(self._storage, info, self._keep)
                # Before the next save may begin: completions are told in their order.
                on_complete(info)
            return info

        return _in_background("tfos-checkpoint-save", complete)

    def save(
        self,
        step: int,
        generation: int,
        write: Callable[[str], None],
        positions: Mapping[int, FeedPosition | Sequence[int]] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckpointInfo:
        """Save as `begin_save` does, and block until the checkpoint is complete and on disk."""
        return self.begin_save(step, generation, write, positions, metadata).result()

    def write_report(self, run_id: str, report: Mapping[str, Any]) -> str:
        """Keep a run's report beside the checkpoints, as ``reports/<run_id>.json``.

        Complete or absent; the reports of the 20 latest runs by their ids are kept, this one among
        them. `remove_all` leaves reports alone. Blocks for as long as the storage takes.

        Parameters
        ----------
        run_id
            Letters, digits, dots, dashes, underscores. Those of tfos begin with the time.
        report
            JSON values only.

        Returns
        -------
        str
            The report's path or URL.

        Raises
        ------
        CheckpointError
            If it cannot be written; an old one that cannot be removed is only warned of.
        TypeError, ValueError
            If an argument is not of the kind asked for.
        """
        return keep_report(self._storage, run_id, report)

    def lease(self, run_id: str, on_lost: Callable[[str], None]) -> CheckpointLease:
        """Return the right to train on this job's checkpoints: see `CheckpointLease`."""
        return CheckpointLease(self._storage, holder_here(run_id), on_lost)

    def latest(self) -> CheckpointInfo | None:
        """Return the newest complete checkpoint, None without one.

        Complete means: committed, its manifest whole, every file there in its size. Checksums are
        verified when it is loaded. Those that cannot be used are passed over with a warning that
        says why, once each.

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
        self._warn_of(scan.unusable)
        return scan.complete

    def judge(self) -> Judgement:
        """Find, before a run costs anything, what a resume would meet; warn of what it passes over.

        Blocks for as long as the storage takes, for at most 2 minutes.

        Returns
        -------
        Judgement

        Raises
        ------
        CheckpointCorruptError
            If there are checkpoints and none can be used: starting over is for the user to decide.
        CheckpointError
            As `latest`, or if the storage does not answer in time.
        """
        # A thread of its own: a network file system that hangs cannot be interrupted.
        scanning = _in_background("tfos-checkpoint-scan", lambda: scan_storage(self._storage))
        try:
            scan = scanning.result(_SCAN_TIMEOUT_S)
        except FutureTimeoutError as error:
            raise CheckpointError(
                f"the checkpoints in {self.location} could not be listed within "
                f"{_SCAN_TIMEOUT_S:g} s; let {_OPTION} name another place"
            ) from error
        if scan.unusable and not scan.complete:
            raise self._none_is_whole([*scan.unusable.values()])
        self._warn_of(scan.unusable)
        return Judgement(scan.complete[0] if scan.complete else None, (*scan.unusable,))

    def _warn_of(self, unusable: Mapping[str, CheckpointError]) -> None:
        for name, error in unusable.items():
            if name not in self._passed_over:
                _logger.warning("passing over a checkpoint that cannot be used: %s", error)
        self._passed_over |= unusable.keys()

    def _none_is_whole(self, errors: Sequence[CheckpointError]) -> CheckpointCorruptError:
        several = f"none of the {len(errors)} checkpoints" if len(errors) > 1 else "no checkpoint"
        error = CheckpointCorruptError(
            f"{several} in {self.location} can be used ({errors[0]}); mend that, or run with "
            "--fresh to remove what is there and start over",
            path=self.location,
        )
        error.__cause__ = errors[0]
        return error

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
        CheckpointUnreadableError
            If this user may not read a file.
        CheckpointError
            If it cannot be read, or `directory` has no room.
        """
        path = self._storage.fetch(info.name, info.files, directory)
        for file, entry in info.files.items():
            try:
                with open_regular(os.path.join(path, *file.split("/"))) as source:
                    found = sha256_of(read_chunks(source))
            except FileNotFoundError as error:
                raise CheckpointCorruptError(
                    f"{info.path} lost its file {file} after it was listed", path=info.path
                ) from error
            except NotAFileError as error:
                raise CheckpointCorruptError(
                    f"{file} of {info.path} is not a regular file", path=info.path
                ) from error
            except PermissionError as error:
                raise CheckpointUnreadableError(
                    f"{file} of {info.path} may not be read by user {os.geteuid()}: change its "
                    "permissions or remove the checkpoint",
                    path=info.path,
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
        self._warn_of(scan.unusable)
        failed = [*scan.unusable.values()]
        for info in scan.complete:
            try:
                return LoadedCheckpoint(info, self.load(info, directory))
            except (CheckpointCorruptError, CheckpointUnreadableError) as error:
                self._warn_of({info.name: error})
                failed.append(error)
        if not failed:
            return None
        raise self._none_is_whole(failed)

    def clean(self) -> None:
        """Remove what interrupted saves left. Only while no other process saves.

        Raises
        ------
        CheckpointError
            If the storage cannot be read; what cannot be removed is only warned of.
        """
        with self._exclusive():
            scan = scan_storage(self._storage)
            remove_or_warn(self._storage, (*scan.unfinished, *self._storage.leftovers()))

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
        # A thread of its own: a network file system that hangs cannot be interrupted.
        result = _in_background("tfos-checkpoint-probe", self._storage.probe)
        try:
            result.result(_PROBE_TIMEOUT_S)
        except FutureTimeoutError as error:
            raise CheckpointError(
                f"checkpoints cannot be kept: {self.location} did not answer within "
                f"{_PROBE_TIMEOUT_S:g} s; let {_OPTION} name another place"
            ) from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=SAVE_WAIT_S):
            raise CheckpointError(
                f"a checkpoint that is being written to {self.location} has not come to its end "
                f"within {SAVE_WAIT_S:g} s: look at that storage, or let {_OPTION} name another"
            )
        try:
            yield
        finally:
            self._writing.release()

    def _call_write(self, write: Callable[[str], None], staging: str, step: int) -> None:
        with told(self._storage, step):
            try:
                write(staging)
            except OSError:
                raise
            except Exception as error:
                if not out_of_space(error, staging):
                    raise
                raise OSError(errno.ENOSPC, str(error)) from error


def _in_background(name: str, call: Callable[[], _T]) -> Future[_T]:
    """Run a call in a thread of its own that does not hold the process."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
