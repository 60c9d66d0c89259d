"""Say where the Hadoop configuration lies in a process that Spark started. Pure.

Clients of HDFS that are not Spark's own read ``HADOOP_CONF_DIR``. Containers of YARN need not have
it: the configuration that the submitter had is unpacked in their working directory then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["hadoop_configuration"]

_NAME: Final = "HADOOP_CONF_DIR"
_UNPACKED: Final = os.path.join("__spark_conf__", "__hadoop_conf__")


def hadoop_configuration(
    environ: Mapping[str, str],
    directory: str,
    is_directory: Callable[[str], bool] = os.path.isdir,
) -> dict[str, str]:
    """Return what to add to a process's environment so that it finds Hadoop's configuration.

    Parameters
    ----------
    environ
        Its environment; a directory that it names, and that is there, stays.
    directory
        The container's working directory.
    is_directory
        Says whether a path is a directory.
    """
    named, unpacked = environ.get(_NAME), os.path.join(directory, _UNPACKED)
    if (named and is_directory(named)) or not is_directory(unpacked):
        return {}
    return {_NAME: unpacked}
