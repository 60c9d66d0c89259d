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

_ALWAYS_NEEDED = ("pyarrow", "pandas", "tfos")
_OF_THE_HOST = {"host", "python", "machine", "tfos_code"}
_PACKAGES = {"tensorflow": "TensorFlow", "horovod": "Horovod"}


def installed_versions(
    packages: Sequence[str], path: Sequence[str] | None = None
) -> dict[str, str | None]:
    """Return package -> version of what training needs, None for what is missing.

    Reads a few small files and imports nothing of it.

    Parameters
    ----------
    packages
        What the architecture needs (`tfos.frameworks.contract.Framework.packages`).
    path
        Directories to look into; by default ``sys.path``.
    """
    names = (*packages, *_ALWAYS_NEEDED)
    found = {name: installed_distribution(name, path) for name in names}
    return {
        **{name: None if each is None else each.version for name, each in found.items()},
        # Each goes by several names.
        **({"tensorflow": tensorflow_version(path)} if "tensorflow" in packages else {}),
        **({"horovod": horovod_version(path)} if "horovod" in packages else {}),
    }


def describe_here(packages: Sequence[str]) -> dict[str, str | None]:
    """Return what this process's host and Python are, for `differences`.

    Plain text throughout, so it travels as JSON. Imports nothing heavy; takes some 20 ms.

    Parameters
    ----------
    packages
        What the architecture needs.

    Returns
    -------
    dict[str, str | None]
        ``host``, ``python`` and ``machine``, the versions of `packages`, ``pyarrow``, ``pandas``
        and ``tfos`` (None for what is missing), and ``tfos_code``, which tells apart copies of
        tfos that bear the same version.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **installed_versions(packages),
        # What runs, which may come by PYTHONPATH or --py-files and not be installed.
        "tfos": tfos.__version__,
        "tfos_code": _code_digest(),
    }


def differences(driver: Mapping[str, str | None], host: Mapping[str, str | None]) -> list[str]:
    """Say how a host that is to train differs from the driver, where it matters. Pure.

    The same Python but for its patch version, the same tfos and the same TensorFlow but for its
    patch version are needed, and all else that `describe_here` was asked for in any version.

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
    for package, version in host.items():
        if version is None and package not in _OF_THE_HOST:
            told.append(f"{name} has no {_PACKAGES.get(package, package)}, which training needs")
    told += _different_tfos(name, driver, host)
    theirs, ours = host.get("tensorflow"), driver.get("tensorflow")
    if theirs and ours and _minor(theirs) != _minor(ours):
        told.append(
            f"{name} has TensorFlow {theirs}, the driver {ours}: checkpoints and models of one may "
            "not load in the other"
        )
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
