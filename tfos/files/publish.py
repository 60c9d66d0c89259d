"""Put a directory, such as a SavedModel, where its readers look, so that they see it when whole."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tfos.errors import CheckpointError
from tfos.files.durable import explained, fsync_directory, fsync_tree, remove_tree
from tfos.files.open import is_object_store, open_file_system
from tfos.files.remote import remove_stale, told_by_client, upload_tree

__all__ = ["publish_directory"]

_logger = logging.getLogger(__name__)

_OPTION: Final = "--model-dir"
# To TensorFlow a directory without it is no model.
_LAST: Final = "saved_model.pb"
_ASIDE: Final = re.compile(r"\d+\.tmp-[0-9a-f]{32}")


def publish_directory(write: Callable[[str], None], model_dir: str, version: int) -> str:
    """Write a directory and make it ``model_dir/version``, the layout TensorFlow Serving watches.

    The directory is written beside its final place, brought to the disk and renamed, so a reader
    never sees a part of it; on HDFS it is uploaded beside it and renamed. Object stores have no
    such rename: the files arrive in place one by one and ``saved_model.pb`` last. What fails there
    is removed; a process that is killed leaves a version without ``saved_model.pb``. Elsewhere what
    it leaves beside the versions is removed a day later.

    Blocks until done. One process publishes at a time; a version that exists is left alone and the
    next free number taken.

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
        remove_stale(file_system, os.path.abspath(root), _ASIDE)
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
    try:
        if is_object_store(file_system):
            target = _free(file_system, root, version)
            with _removed_on_failure(file_system, target):
                upload_tree(file_system, staging, target, _LAST)
        else:
            remove_stale(file_system, root, _ASIDE)
            aside = f"{root}/{version}.tmp-{uuid.uuid4().hex}"
            with _removed_on_failure(file_system, aside):
                upload_tree(file_system, staging, aside)
                target = _free(file_system, root, version)
                file_system.mv(aside, target, recursive=True)
    except Exception as error:  # clients of object stores raise types of their own
        raise CheckpointError(
            f"the model was not written: {told_by_client(error)} ({model_dir}, set by {_OPTION})"
        ) from error
    return f"{model_dir.rstrip('/')}/{target.rpartition('/')[2]}"


def _free(file_system: Any, root: str, version: int) -> str:
    file_system.invalidate_cache()
    while file_system.exists(target := f"{root}/{version}"):
        version += 1
    return target


@contextmanager
def _removed_on_failure(file_system: Any, path: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        try:
            file_system.invalidate_cache()
            if file_system.exists(path):
                file_system.rm(path, recursive=True)
        except Exception as left:
            _logger.warning("%s could not be removed: %s", path, left)
        raise


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
