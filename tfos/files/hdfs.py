"""Open HDFS by the hdfs-native client, which needs neither Java nor libhdfs."""

from __future__ import annotations

import os
import re
from typing import Final

from hdfs_native.fsspec import HdfsFileSystem

__all__ = ["HdfsFiles", "open_hdfs"]

_URL: Final = re.compile(
    r"hdfs:(?:(?=/[^/])|//(?P<host>\[[^/\]]*\]|[^/:]*)(?::(?P<port>\d+))?)(?P<path>/.*)?", re.DOTALL
)
_NAME_NODE_PORT: Final = 8020


class HdfsFiles(HdfsFileSystem):
    """HDFS as fsspec sees it, paths taken as they are.

    hdfs-native's own class reads every path as a URL and drops what follows ``;``, ``?`` or ``#``:
    a file of such a name would take the place of another.
    """

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        match = _URL.fullmatch(path)
        return path if match is None else match["path"] or "/"


def open_hdfs(url: str) -> tuple[HdfsFiles, str]:
    """Return the file system of an ``hdfs:`` URL and the path in it; asks no server anything.

    Without a host it is ``fs.defaultFS`` of the configuration in ``HADOOP_CONF_DIR``, which is set
    to ``YARN_CONF_DIR`` where it is missing. A host without a port is a nameservice of that
    configuration, or a NameNode at port 8020.

    Raises
    ------
    ValueError
        If it is no such URL, or the configuration lacks what it needs.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("expected hdfs://HOST:PORT/PATH, hdfs://NAMESERVICE/PATH or hdfs:///PATH")
    # Not by urllib: it makes names lower-case, and a nameservice's name may not be.
    host = match["host"] or None
    port = int(match["port"]) if match["port"] else None
    try:
        file_system = _connected(host, port)
    except RuntimeError as error:
        if host is None or port is not None:
            raise ValueError(str(error)) from error
        file_system = _connected(host, _NAME_NODE_PORT)
    return file_system, match["path"] or "/"


def _connected(host: str | None, port: int | None) -> HdfsFiles:
    # Spark takes either variable, hdfs-native this one alone.
    if not os.environ.get("HADOOP_CONF_DIR") and os.environ.get("YARN_CONF_DIR"):
        os.environ["HADOOP_CONF_DIR"] = os.environ["YARN_CONF_DIR"]
    # A cached one would keep a configuration that HADOOP_CONF_DIR no longer names.
    return HdfsFiles(host, port, skip_instance_cache=True)
