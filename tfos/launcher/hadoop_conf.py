"""Find and read the configuration of a Hadoop cluster. Runs where ``pl_submit`` does."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from tfos.errors import ConfigError

__all__ = ["default_file_system", "hadoop_conf_dir"]

_VARIABLES = ("HADOOP_CONF_DIR", "YARN_CONF_DIR")


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
