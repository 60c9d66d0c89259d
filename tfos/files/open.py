"""Open the file system that a path or URL names."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

import fsspec

from tfos.errors import CheckpointError, ConfigError

__all__ = ["is_hdfs", "is_object_store", "open_file_system", "protocols"]

_OBJECT_STORES: Final = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"}


def open_file_system(url: str, option: str) -> tuple[Any, str, bool]:
    """Return the fsspec file system of a URL, the path in it, and whether it is the local one.

    Raises
    ------
    ConfigError
        If the URL's scheme is unknown, or its client is not installed; names `option`.
    CheckpointError
        If it cannot be reached.
    """
    try:
        if is_hdfs(url):
            return *_open_hdfs(url), False
        file_system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{option} {url!r} cannot be used: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{option} {url!r} cannot be reached: {error}") from error
    return file_system, str(root), "file" in protocols(file_system)


def protocols(file_system: Any) -> set[str]:
    """Return the schemes of the URLs that an fsspec file system is known by."""
    protocol = file_system.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)


def is_object_store(file_system: Any) -> bool:
    """Say whether files appear whole there, and a rename is a copy of each.

    Such a store has neither directories nor modes.
    """
    return bool(protocols(file_system) & _OBJECT_STORES)


def is_hdfs(url: str) -> bool:
    """Say whether a URL is of HDFS."""
    return url.startswith("hdfs:")


def _open_hdfs(url: str) -> tuple[Any, str]:
    # fsspec's own choice may be pyarrow's client, which needs a libhdfs that no package index has.
    try:
        from tfos.files.hdfs import open_hdfs
    except ImportError as error:
        raise ImportError(
            "its client is missing: pip install 'hdfs-native>=0.14.7,<0.15' on this host "
            f"({socket.gethostname()}) and wherever driver and roles run"
        ) from error
    try:
        return open_hdfs(url)
    except ValueError as error:
        where = os.environ.get("HADOOP_CONF_DIR")
        raise ValueError(
            f"{error} ({'no HADOOP_CONF_DIR is set' if where is None else where})"
        ) from error
