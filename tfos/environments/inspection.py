"""Look at an environment: its interpreter, where its packages are, what cannot work with it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfos.environment_spec import EnvironmentSpec
from tfos.environments.versions import installed_versions
from tfos.errors import ConfigError

__all__ = ["Editable", "Inspection", "inspect_environment", "problems"]

_PROBE = Path(__file__).with_name("probe.py")
_PROBE_TIMEOUT_S = 60.0
_CONDA_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Editable:
    """A package that an environment imports from a project's directory.

    Parameters
    ----------
    name
        Its distribution's name.
    sources
        Names in site-packages, and the directories or files of the packages.
    finders
        Files in site-packages that only point to the project.
    """

    name: str
    sources: tuple[tuple[str, Path], ...]
    finders: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What is known of an environment after its interpreter ran once, for a moment."""

    spec: EnvironmentSpec
    prefix: Path
    version: tuple[int, int, int]
    build: str
    """Version, compiler and implementation as the interpreter names them."""
    machine: str
    base_prefix: Path
    base_executable: Path
    stdlib: Path
    platstdlib: Path
    site_packages: tuple[Path, ...]
    system_site: bool
    """Whether packages of the base interpreter are imported too."""
    editables: tuple[Editable, ...]
    foreign_paths: tuple[Path, ...]
    """Directories added by hand to the path, by ``.pth`` files."""

    @property
    def minor_version(self) -> str:
        """Python's version without the patch, such as ``3.11``."""
        return f"{self.version[0]}.{self.version[1]}"


def inspect_environment(spec: EnvironmentSpec) -> Inspection:
    """Run the interpreter of a ``venv:`` or ``conda:`` environment once and return what it says.

    Takes some 0.2 s, at most a minute; a conda environment named without its directory also asks
    ``conda`` where it is.

    Raises
    ------
    ConfigError
        If there is no such environment, or its interpreter does not run.
    """
    prefix = _prefix(spec)
    python = prefix / "bin" / "python"
    if not prefix.is_dir():
        raise ConfigError(f"--env {spec}: there is no directory {prefix}")
    is_conda = (prefix / "conda-meta").is_dir()
    if spec.kind == "venv" and is_conda:
        raise ConfigError(f"--env {spec} is a conda environment: use --env conda:{spec.value}")
    if spec.kind == "conda" and not is_conda:
        raise ConfigError(
            f"--env {spec}: {prefix} is no conda environment, it has no conda-meta; for a virtual "
            f"environment use --env venv:{prefix}"
        )
    if not os.path.lexists(python):
        made = "python -m venv" if spec.kind == "venv" else "conda create ... python"
        raise ConfigError(
            f"--env {spec}: there is no interpreter {python}; name a directory that {made} made"
        )
    return _read(spec, prefix, _run_probe(spec, python))


def _prefix(spec: EnvironmentSpec) -> Path:
    if spec.kind == "conda" and "/" not in spec.value and not spec.value.startswith("~"):
        return _conda_prefix(spec)
    return Path(os.path.abspath(os.path.expanduser(spec.value)))


def _conda_prefix(spec: EnvironmentSpec) -> Path:
    """Ask conda for the directory of a named environment."""
    conda = os.environ.get("CONDA_EXE", "conda")
    instead = f"name the environment's directory instead: --env conda:/path/to/{spec.value}"
    try:
        answer = subprocess.run(
            [conda, "info", "--json"],
            capture_output=True,
            text=True,
            timeout=_CONDA_TIMEOUT_S,
            check=True,
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"--env {spec}: {conda} cannot be asked ({error}); {instead}") from error
    return _named(spec, found)


def _named(spec: EnvironmentSpec, found: Mapping[str, Any]) -> Path:
    """Choose the directory as conda does by a name, or the only one that ends in it."""
    if spec.value == "base" and found.get("root_prefix"):
        return Path(found["root_prefix"])
    for directory in found.get("envs_dirs", ()):
        if Path(directory, spec.value, "conda-meta").is_dir():
            return Path(directory, spec.value)
    # Those that were made by their directory (-p) are listed too.
    prefixes = list(dict.fromkeys(map(Path, found.get("envs", ()))))
    named = [prefix for prefix in prefixes if prefix.name == spec.value]
    if not named:
        known = ", ".join(sorted({prefix.name for prefix in prefixes})) or "none"
        raise ConfigError(f"--env {spec}: conda knows no such environment (it has {known})")
    if len(named) > 1:
        choices = " or ".join(f"--env conda:{prefix}" for prefix in named)
        raise ConfigError(f"--env {spec}: conda has several of that name; use {choices}")
    return named[0]


def _run_probe(spec: EnvironmentSpec, python: Path) -> dict[str, Any]:
    # Isolated: what PYTHONPATH adds here is not in the environment.
    command = [str(python), "-I", str(_PROBE)]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True
        )
        return dict(json.loads(answer.stdout))
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise ConfigError(
            f"--env {spec}: {python} does not run ({last}): make the environment again"
        ) from error
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(
            f"--env {spec}: {python} does not run ({error}): make the environment again"
        ) from error


def _read(spec: EnvironmentSpec, prefix: Path, found: dict[str, Any]) -> Inspection:
    def path(name: str) -> Path:
        return Path(os.path.realpath(found[name]))

    major, minor, patch = found["version"]
    return Inspection(
        spec=spec,
        prefix=prefix,
        version=(major, minor, patch),
        build=found["build"],
        machine=found["machine"],
        base_prefix=path("base_prefix"),
        base_executable=path("base_executable"),
        stdlib=path("stdlib"),
        platstdlib=path("platstdlib"),
        site_packages=tuple(map(Path, found["site_packages"])),
        system_site=found["system_site"],
        editables=tuple(
            Editable(
                each["name"],
                tuple((name, Path(source)) for name, source in each["sources"]),
                tuple(each["finders"]),
            )
            for each in found["editables"]
        ),
        foreign_paths=tuple(map(Path, found["foreign_paths"])),
    )


def problems(
    inspection: Inspection,
    packages: Sequence[str],
    *,
    python: tuple[int, int] | None,
    machine: str = platform.machine(),
) -> list[str]:
    """Say what will not work with an environment, as far as can be known without importing.

    Parameters
    ----------
    packages
        What the architecture needs.
    python
        The version of the driver's Python; None if the driver has the environment too.
    machine
        This machine's architecture.

    Returns
    -------
    list[str]
        One line for each; none if all is well.
    """
    told = []
    if python is not None and inspection.version[:2] != python:
        told.append(
            f"the environment has Python {inspection.minor_version}, the driver "
            f"{python[0]}.{python[1]}: executors could not read what the driver sends; run both by "
            "the same version"
        )
    if inspection.machine != machine:
        told.append(
            f"the environment is for {inspection.machine}, this machine is {machine}: it runs only "
            f"on hosts that are {inspection.machine}"
        )
    versions = installed_versions(packages, [str(path) for path in inspection.site_packages])
    editable = {each.name for each in inspection.editables}
    missing = [name for name, each in versions.items() if each is None and name not in editable]
    if missing:
        told.append(
            f"the environment lacks {', '.join(missing)}, which training needs: "
            f"{inspection.prefix}/bin/python -m pip install {' '.join(missing)}"
        )
    told += [
        f"{each.name} is installed editable and none of its packages was found: install it "
        "without -e"
        for each in inspection.editables
        if not each.sources
    ]
    told += [
        f"{path}, which a .pth file adds to the path, is not packed: install what is in it"
        for path in inspection.foreign_paths
    ]
    return told
