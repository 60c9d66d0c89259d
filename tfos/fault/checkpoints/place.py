"""Open the storage of a job's checkpoints that a path or URL names."""

from __future__ import annotations

import os

from tfos.fault.checkpoints.storage import OPTION, CheckpointStorage
from tfos.fault.checkpoints.storage_local import LocalStorage
from tfos.fault.checkpoints.storage_remote import HdfsStorage, RemoteStorage
from tfos.files.open import is_hdfs, open_file_system

__all__ = ["open_storage"]


def open_storage(url: str, job_name: str, option: str = OPTION) -> CheckpointStorage:
    """Open the directory of a job's checkpoints under a path or URL; touches nothing yet.

    Raises
    ------
    ConfigError
        If the URL's scheme is unknown, or its client is not installed; names `option`.
    """
    file_system, root, local = open_file_system(url, option)
    if local:
        return LocalStorage(f"{os.path.abspath(root).rstrip('/')}/{job_name}")
    root = root.rstrip("/")
    kind = HdfsStorage if is_hdfs(url) else RemoteStorage
    return kind(file_system, f"{root}/{job_name}", f"{url.rstrip('/')}/{job_name}")
