"""Say what a host has that training needs, and what of it does not fit the driver's."""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import tfos
from tfos.horovod_installed import horovod_version, installed_distribution, tensorflow_version

__all__ = ["describe_here", "differences", "installed_versions"]

_NEEDED = ("tensorflow", "pyarrow", "pandas", "tfos")
_PACKAGES = {"tensorflow": "TensorFlow", "horovod": "Horovod"}


def installed_versions(path: Sequence[str] | None = None) -> dict[str, str | None]:
    """Return package -> version of what training needs, None for what is missing.

    Reads a few small files and imports nothing of it.

    Parameters
    ----------
    path
        Directories to look into; by default ``sys.path``.
    """
    found = {name: installed_distribution(name, path) for name in ("pyarrow", "pandas", "tfos")}
    return {
        "tensorflow": tensorflow_version(path),
        "horovod": horovod_version(path),
        **{name: None if each is None else each.version for name, each in found.items()},
    }


def describe_here() -> dict[str, str | None]:
    """Return what this process's host and Python are, for `differences`.

    Plain text throughout, so it travels as JSON. Imports nothing heavy; takes some 20 ms.

    Returns
    -------
    dict[str, str | None]
        ``host``, ``python`` and ``machine``, the versions of ``tensorflow``, ``horovod``,
        ``pyarrow``, ``pandas`` and ``tfos`` (None for what is missing), and ``tfos_code``, which
        tells apart copies of tfos that bear the same version.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **installed_versions(),
        # What runs, which may come by PYTHONPATH or --py-files and not be installed.
        "tfos": tfos.__version__,
        "tfos_code": _code_digest(),
    }


def differences(driver: Mapping[str, str | None], host: Mapping[str, str | None]) -> list[str]:
    """Say how a host that is to train differs from the driver, where it matters. Pure.

    The same Python but for its patch version, the same tfos and the same TensorFlow but for its
    patch version are needed, and pyarrow and pandas in any version.

    Parameters
    ----------
    driver, host
        What `describe_here` returned there.

    Returns
    -------
    list[str]
        One line for each difference; none if all is well.
    """
    name = host.get("host") or "the host"
    told = []
    if _minor(driver.get("python")) != _minor(host.get("python")):
        told.append(
            f"{name} has Python {host.get('python')}, the driver {driver.get('python')}: what the "
            "driver sends cannot be read there"
        )
    for package in _NEEDED:
        if host.get(package) is None:
            told.append(f"{name} has no {_PACKAGES.get(package, package)}, which training needs")
    told += _different_tfos(name, driver, host)
    theirs, ours = host.get("tensorflow"), driver.get("tensorflow")
    if theirs and ours and _minor(theirs) != _minor(ours):
        told.append(
            f"{name} has TensorFlow {theirs}, the driver {ours}: checkpoints and models of one may "
            "not load in the other"
        )
    if driver.get("horovod") and not host.get("horovod"):
        told.append(f"{name} has no Horovod, the driver has: --arch ring cannot train there")
    return told


def _different_tfos(
    name: str, driver: Mapping[str, str | None], host: Mapping[str, str | None]
) -> list[str]:
    theirs, ours = host.get("tfos"), driver.get("tfos")
    if theirs is None or ours is None:
        return []
    if theirs != ours:
        return [f"{name} has tfos {theirs}, the driver {ours}: they have to be the same"]
    codes = host.get("tfos_code"), driver.get("tfos_code")
    if None not in codes and codes[0] != codes[1]:
        return [
            f"{name} has other code under tfos {theirs} than the driver: pack the environment "
            "again and let --env name it"
        ]
    return []


def _minor(version: str | None) -> tuple[str, ...]:
    return tuple((version or "").split(".")[:2])


def _code_digest() -> str | None:
    """Return a digest of tfos's Python files; None where they are no files, as in a zip."""
    package = Path(tfos.__file__).parent
    files = sorted(package.rglob("*.py"))
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
