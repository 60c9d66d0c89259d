"""Pass a run's record and the wish to end it between client and driver, on different hosts.

A directory of the cluster's file system, named by the YARN application: the driver writes its
record there, by rename; the client asks for an orderly end by a file called ``stop``. What only the
user may read lies in ``private``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tfos.errors import ConfigError, InfrastructureError, TfosError
from tfos.files.modes import set_mode
from tfos.files.open import open_file_system
from tfos.launcher.handover.driver_script import NOT_STARTED
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.result import RunResult

__all__ = ["RunDirectory", "application_of_container", "runs_root"]

_OPTION = "spark.staging_dir"
_REGISTRY = "private/registry.json"
_CONTAINER = re.compile(r"container_(?:e\d+_)?(\d+_\d+)_(\d+)_\d+")


def runs_root(staging: str) -> str:
    """Return where the directories of all runs lie, below the staging directory."""
    return f"{staging.rstrip('/')}/runs"


def application_of_container(container: str) -> tuple[str, int]:
    """Return the application and its attempt, from 1, that a YARN container belongs to.

    Raises
    ------
    InfrastructureError
        If `container` is no container's id.
    """
    match = _CONTAINER.fullmatch(container)
    if match is None:
        raise InfrastructureError(f"CONTAINER_ID is {container!r}: not a container of YARN")
    return f"application_{match[1]}", int(match[2])


class RunDirectory:
    """The directory of one application. Each call blocks for a few of the file system.

    Parameters
    ----------
    root
        See `runs_root`.
    application
        The application's id.

    Raises
    ------
    TfosError
        If the file system cannot be used.
    """

    def __init__(self, root: str, application: str) -> None:
        self.url = f"{root}/{application}"
        self._fs, path, _ = open_file_system(root, _OPTION)
        self._path = f"{path.rstrip('/')}/{application}"

    def write(self, result: RunResult) -> None:
        """Keep the record; raises InfrastructureError if that fails."""
        aside = f"{self._path}/.{uuid.uuid4().hex}"
        with self._explained("written"):
            self._fs.makedirs(self._path, exist_ok=True)
            self._fs.pipe_file(aside, result.to_text().encode())
            self._fs.mv(aside, f"{self._path}/result.json")

    def read(self) -> RunResult | None:
        """Return the record, also of a driver that could not start; None when there is none.

        Raises
        ------
        InfrastructureError
            If it cannot be read.
        """
        data = self._read("result.json")
        if data is None and (why := self._read(NOT_STARTED)) is not None:
            return RunResult.from_error(ConfigError(why.decode(errors="replace")))
        try:
            return None if data is None else RunResult.from_text(data)
        except ValueError as error:
            raise self._failed("read", error) from error

    def ask_stop(self, why: str) -> None:
        """Ask the driver for an orderly end; raises InfrastructureError if that fails."""
        self._note("stop", why)

    def stop_asked(self) -> str | None:
        """Return why the end was asked for; None while it was not."""
        data = self._read("stop")
        return None if data is None else data.decode(errors="replace")

    def note_fresh(self) -> None:
        """Note that ``--fresh`` is done; raises InfrastructureError if that fails."""
        self._note("fresh", "checkpoints removed")

    def was_fresh(self) -> bool:
        """Whether an attempt before this one did what ``--fresh`` asks for."""
        return self._read("fresh") is not None

    def note_registry(self, address: RegistryAddress) -> None:
        """Note where the run's nodes are; raises InfrastructureError if that fails.

        In private: with the secret that opens them.
        """
        private = f"{self._path}/private"
        with self._explained("written"):
            self._fs.makedirs(private, exist_ok=True)
            set_mode(self._fs, private, 0o700)
        self._note(_REGISTRY, address.to_text())

    def registry(self) -> RegistryAddress | None:
        """Return what was noted; None when nothing was.

        Raises
        ------
        InfrastructureError
            If it cannot be read.
        """
        data = self._read(_REGISTRY)
        try:
            return None if data is None else RegistryAddress.from_text(data.decode())
        except ValueError as error:
            raise self._failed("read", error) from error

    def remove(self) -> None:
        """Remove the directory; one that is not there is fine."""
        with self._explained("removed"), suppress(FileNotFoundError):
            self._fs.rm(self._path, recursive=True)

    def _note(self, name: str, text: str) -> None:
        with self._explained("written"):
            self._fs.makedirs(self._path, exist_ok=True)
            self._fs.pipe_file(f"{self._path}/{name}", text.encode())

    def _read(self, name: str) -> bytes | None:
        with self._explained("read"), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            return bytes(self._fs.cat_file(f"{self._path}/{name}"))
        return None

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            yield
        except TfosError:
            raise  # of a signal, which ends more than this
        except Exception as error:  # each file system has errors of its own
            raise self._failed(done, error) from error

    def _failed(self, done: str, error: Any) -> TfosError:
        return InfrastructureError(f"{self.url} could not be {done}: {error} (set by {_OPTION})")
