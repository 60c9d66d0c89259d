"""Put a directory, such as a SavedModel, where its readers look: whole or not at all."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tfos.errors import CheckpointError
from tfos.fault.checkpoint_place import open_file_system
from tfos.fault.checkpoint_storage_remote import told_by_client, upload_tree
from tfos.fault.durable_files import explained, fsync_directory, fsync_tree, remove_tree

__all__ = ["publish_directory"]

_logger = logging.getLogger(__name__)

_OPTION: Final = "--model-dir"


def publish_directory(write: Callable[[str], None], model_dir: str, version: int) -> str:
    """Write a directory and make it ``model_dir/version``, the layout TensorFlow Serving watches.

    The directory is written beside its final place, brought to the disk and renamed, so a reader
    never sees a part of it. Behind a URL it is uploaded under another name and moved: one step on
    HDFS, file by file on object stores. Blocks until done. One process publishes at a time; a
    version that exists is left alone and the next free number taken.

    Parameters
    ----------
    write
        Called with an empty local directory to fill. What it raises passes through, but an OSError
        becomes CheckpointError.
    model_dir
        Directory or URL, made if it is not there.
    version
        Such as the training step, 0 or more.

    Returns
    -------
    str
        The directory or URL it was published as.

    Raises
    ------
    CheckpointError
        If it cannot be written; names ``--model-dir``.
    ConfigError
        If the URL's scheme is unknown or its client is not installed.
    """
    if version < 0:
        raise ValueError(f"version is {version}: it must be 0 or more")
    file_system, root, local = open_file_system(model_dir, _OPTION)
    if local:
        return _publish_local(write, os.path.abspath(root), version)
    with _staged(tempfile.mkdtemp(prefix="tfos-model-")) as staging:
        _fill(write, staging, model_dir)
        return _publish_remote(file_system, staging, model_dir, root.rstrip("/"), version)


def _publish_local(write: Callable[[str], None], model_dir: str, version: int) -> str:
    staging = os.path.join(model_dir, f"{version}.tmp-{uuid.uuid4().hex}")
    with explained("the model was not written", model_dir, _OPTION):
        os.makedirs(staging)
    with _staged(staging):
        _fill(write, staging, model_dir)
        with explained("the model was not written", model_dir, _OPTION):
            fsync_tree(staging)
            while os.path.lexists(target := os.path.join(model_dir, str(version))):
                version += 1
            os.rename(staging, target)
            fsync_directory(model_dir)
    return target


def _publish_remote(file_system: Any, staging: str, model_dir: str, root: str, version: int) -> str:
    aside = f"{root}/{version}.tmp-{uuid.uuid4().hex}"
    try:
        upload_tree(file_system, staging, aside)
        file_system.invalidate_cache()
        while file_system.exists(f"{root}/{version}"):
            version += 1
        file_system.mv(aside, f"{root}/{version}", recursive=True)
    except Exception as error:  # clients of object stores raise types of their own
        try:
            if file_system.exists(aside):
                file_system.rm(aside, recursive=True)
        except Exception as left:
            _logger.warning("%s could not be removed: %s", aside, left)
        raise CheckpointError(
            f"the model was not written: {told_by_client(error)} ({model_dir}, set by {_OPTION})"
        ) from error
    return f"{model_dir.rstrip('/')}/{version}"


def _fill(write: Callable[[str], None], staging: str, model_dir: str) -> None:
    with explained("the model was not written", model_dir, _OPTION):
        write(staging)
        if not os.listdir(staging):
            raise CheckpointError("the model was not written: nothing is in its directory")


@contextmanager
def _staged(path: str) -> Iterator[str]:
    try:
        yield path
    finally:
        try:
            remove_tree(path)
        except OSError as error:
            _logger.warning("%s could not be removed: %s", path, error)
