"""What a warm start may begin from: a job's checkpoints, one checkpoint, or a SavedModel."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, Final

from tfos.errors import CheckpointCorruptError, CheckpointError, ConfigError
from tfos.fault.checkpoints.manifest import CheckpointInfo, is_checkpoint_name
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.files.open import open_file_system
from tfos.files.remote import told_by_client

__all__ = ["Source", "find_source"]

_OPTION: Final = "--warm-start"
_EXPECTED: Final = (
    "expected the directory of a job's checkpoints (DIR/NAME), one of them, or a SavedModel"
)
_SAVED_MODEL: Final = "variables"
_MODEL_FILE: Final = "saved_model.pb"


class Source(ABC):
    """Variables that were saved."""

    @abstractmethod
    def fetch(self, directory: str) -> str:
        """Return the local prefix of the variables, downloaded to `directory` if need be.

        Raises
        ------
        CheckpointError
            If they cannot be read, or are not what was saved.
        """


class _Checkpoint(Source):
    def __init__(self, store: CheckpointStore, info: CheckpointInfo) -> None:
        self._store = store
        self._info = info

    def fetch(self, directory: str) -> str:
        """See `Source.fetch`."""
        path = self._store.load(self._info, directory)
        names = sorted(file for file in self._info.files if file.endswith(".index"))
        if len(names) != 1:
            found = ", ".join(sorted(self._info.files))[:200]
            raise ConfigError(
                f"{_OPTION} {self._info.path} holds no variables of TensorFlow's: expected one "
                f"file named *.index, found {found}"
            )
        return os.path.join(path, *names[0].removesuffix(".index").split("/"))


class _SavedModel(Source):
    def __init__(self, file_system: Any, root: str, url: str, *, local: bool) -> None:
        self._fs = file_system
        self._root = root
        self._url = url
        self._local = local

    def fetch(self, directory: str) -> str:
        """See `Source.fetch`."""
        inside = f"{self._root}/{_SAVED_MODEL}"
        if self._local:
            return os.path.join(inside, _SAVED_MODEL)
        try:
            for path in self._fs.find(inside):
                self._fs.get_file(path, os.path.join(directory, path.rpartition("/")[2]))
        except Exception as error:  # clients of object stores raise types of their own
            raise CheckpointError(
                f"{_OPTION} {self._url} cannot be read: {told_by_client(error)}"
            ) from error
        return os.path.join(directory, _SAVED_MODEL)


def find_source(url: str) -> Source:
    """Find what a directory or URL holds to begin from. Blocks for as long as the storage takes.

    Parameters
    ----------
    url
        Of a job's checkpoints, of which the newest complete one is taken, of one checkpoint, or of
        a SavedModel.

    Raises
    ------
    ConfigError
        If there is nothing of the kind; names ``--warm-start``.
    CheckpointError
        If it cannot be read.
    """
    file_system, root, local = open_file_system(url, _OPTION)
    root = os.path.abspath(root) if local else root.rstrip("/")
    try:
        file_system.invalidate_cache()
        model = file_system.exists(f"{root}/{_MODEL_FILE}")
        file = not model and file_system.isfile(root)
    except Exception as error:  # clients of object stores raise types of their own
        raise CheckpointError(f"{_OPTION} {url} cannot be read: {told_by_client(error)}") from error
    if model:
        return _SavedModel(file_system, root, url, local=local)
    if file:
        raise ConfigError(f"{_OPTION} {url} is a file: {_EXPECTED}")
    parent, _, name = (root if local else url.rstrip("/")).rpartition("/")
    if is_checkpoint_name(name):
        parent, _, job = parent.rpartition("/")
        return _one(CheckpointStore(parent, job), name, url)
    found = CheckpointStore(parent, name).latest() if parent and name else None
    if found is None:
        raise ConfigError(f"{_OPTION} {url} holds nothing to begin from: {_EXPECTED}")
    return _Checkpoint(CheckpointStore(parent, name), found)


def _one(store: CheckpointStore, name: str, url: str) -> Source:
    for info in store.list():
        if info.name == name:
            return _Checkpoint(store, info)
    raise CheckpointCorruptError(
        f"{_OPTION} {url} is no complete checkpoint: `tfos checkpoints` lists what is there",
        path=url,
    )
