"""Find and read the configuration of a Hadoop cluster, on the client and in containers."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tfos.errors import ConfigError

__all__ = ["configuration_in_container", "default_file_system", "hadoop_conf_dir"]

_VARIABLES = ("HADOOP_CONF_DIR", "YARN_CONF_DIR")
_UNPACKED: Final = os.path.join("__spark_conf__", "__hadoop_conf__")


def hadoop_conf_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that leads to the cluster.

    Raises
    ------
    ConfigError
        If no variable names one, or it holds no ``yarn-site.xml``.
    """
    for variable in _VARIABLES:
        named = environ.get(variable)
        if named:
            if not (Path(named) / "yarn-site.xml").is_file():
                raise ConfigError(f"{variable} is {named!r}: there is no yarn-site.xml in it")
            return Path(named)
    raise ConfigError(
        "--master yarn needs HADOOP_CONF_DIR: the directory of the cluster's core-site.xml and "
        "yarn-site.xml"
    )


def default_file_system(directory: Path) -> str:
    """Return ``fs.defaultFS`` of a configuration, without a slash at its end; ``file:`` unset.

    Raises
    ------
    ConfigError
        If ``core-site.xml`` is no XML.
    """
    path = directory / "core-site.xml"
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        return "file:"
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for found in root.iter("property"):
        if (found.findtext("name") or "").strip() == "fs.defaultFS":
            return (found.findtext("value") or "").strip().rstrip("/")
    return "file:"


def configuration_in_container(
    environ: Mapping[str, str],
    directory: str,
    is_directory: Callable[[str], bool] = os.path.isdir,
) -> dict[str, str]:
    """Return what to add to a process's environment so that it finds Hadoop's configuration. Pure.

    Clients of HDFS that are not Spark's own read ``HADOOP_CONF_DIR``. Containers of YARN need not
    have it: the submitter's configuration is unpacked in their working directory then.

    Parameters
    ----------
    environ
        Its environment; a directory that it names, and that is there, stays.
    directory
        The container's working directory.
    is_directory
        Says whether a path is a directory.
    """
    added = {}
    if "CONTAINER_ID" in environ and "SPARK_USER" in environ:
        # Without Kerberos a container runs as YARN's own user; the files are the submitter's.
        added["HADOOP_USER_NAME"] = environ.get("HADOOP_USER_NAME", environ["SPARK_USER"])
    named, unpacked = environ.get(_VARIABLES[0]), os.path.join(directory, _UNPACKED)
    if (named and is_directory(named)) or not is_directory(unpacked):
        return added
    return {**added, _VARIABLES[0]: unpacked}
