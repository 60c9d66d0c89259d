"""Say whether the Horovod of this Python environment fits its TensorFlow, importing neither."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

__all__ = [
    "HOROVOD_COMMAND",
    "horovod_problem",
    "horovod_version",
    "installed_distribution",
    "tensorflow_distribution",
    "tensorflow_version",
]

HOROVOD_COMMAND = "tfos horovod"
"""The command that mends what `horovod_problem` tells."""

# All of them install the package `tensorflow`; an environment has one.
_TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-rocm",
    "tensorflow-aarch64",
    "tensorflow-cpu-aws",
    "tf-nightly",
    "tf-nightly-cpu",
)


def installed_distribution(name: str, path: Sequence[str] | None = None) -> Distribution | None:
    """Return what is installed under `name`; None for nothing.

    Parameters
    ----------
    name
        The distribution's name, as pip knows it.
    path
        Directories to look into; by default ``sys.path``.
    """
    return next(iter(distributions(name=name, path=list(sys.path if path is None else path))), None)


def tensorflow_distribution(path: Sequence[str] | None = None) -> Distribution | None:
    """Return the installed TensorFlow, whatever its distribution is called; None without one."""
    found = (installed_distribution(name, path) for name in _TENSORFLOWS)
    return next((each for each in found if each is not None), None)


def tensorflow_version(path: Sequence[str] | None = None) -> str | None:
    """Return the version of the installed TensorFlow, such as ``2.15.1``; None without one."""
    found = tensorflow_distribution(path)
    return None if found is None else found.version


def horovod_version(path: Sequence[str] | None = None) -> str | None:
    """Return the version of the installed Horovod; None without one."""
    found = installed_distribution("horovod", path)
    return None if found is None else found.version


def horovod_problem(path: Sequence[str] | None = None) -> str | None:
    """Say why Horovod cannot train here, and the command that mends it; None if nothing is known.

    Reads two small files and imports nothing: it may run on the driver, and in a few milliseconds.
    That Horovod really works only an allreduce shows: ``tfos horovod --check``.

    Parameters
    ----------
    path
        Directories to look into; by default ``sys.path``.

    Returns
    -------
    str | None
        One line that ends with the command, for an error's message.
    """
    tensorflow = tensorflow_version(path)
    horovod = installed_distribution("horovod", path)
    if tensorflow is None:
        problem = "TensorFlow is not installed: pip install tensorflow, then"
    elif horovod is None:
        problem = "Horovod is not installed:"
    else:
        frameworks = _built_for(horovod)
        if frameworks is None:
            # Somebody's own build, without the record: no reason to refuse it.
            return None
        built_for = frameworks.get("tensorflow", "")
        if _same_version(built_for, tensorflow):
            return None
        what = f"TensorFlow {built_for}" if built_for else "no TensorFlow"
        problem = f"Horovod was built for {what}, installed is {tensorflow}:"
    return f"{problem} run {HOROVOD_COMMAND}"


def _built_for(horovod: Distribution) -> dict[str, str] | None:
    """Return framework -> version as Horovod's build recorded it; None without a record."""
    file = Path(str(horovod.locate_file("horovod/metadata.json")))
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _same_version(one: str, other: str) -> bool:
    # TensorFlow calls itself 2.16.0-rc1, its wheel 2.16.0rc1.
    return one.replace("-", "") == other.replace("-", "")
