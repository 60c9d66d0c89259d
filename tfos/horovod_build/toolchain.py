"""What a build of Horovod needs of this machine, and what pip can bring where it is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tfos.errors import ConfigError
from tfos.horovod_installed import tensorflow_version

__all__ = [
    "build_environment",
    "require_compiler",
    "require_linux",
    "require_pip",
    "require_tensorflow",
    "tensorflow_include",
    "tools_to_fetch",
    "write_cmake",
]

_CMAKE_TIMEOUT_S = 30
_CMAKE = "cmake>=3.26,<4"
_CMAKE_AT_LEAST = (3, 13)
_OWN_CMAKE = "horovods-cmake"
# Horovod's default target compiles Gloo a second time, for PyTorch, and all with debugging symbols:
# a third of the time.
_OWN_CMAKE_TEXT = """\
#!/bin/sh
if [ "$1" = --build ]; then
  directory="$2"
  shift 2
  exec {cmake} --build "$directory" --target tensorflow "$@"
fi
exec {cmake} "$@" "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -DNDEBUG"
"""
# What Horovod 0.28.1's setup.py is known to work with; newer ones announce to drop what it uses.
_PYTHON_TOOLS = ("setuptools<81", "wheel", "packaging")
_FIXED = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    # Gloo's CMakeLists asks for a policy version that CMake 4 no longer has.
    "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
}


def require_linux() -> None:
    """See that this machine can run Horovod.

    Raises
    ------
    ConfigError
        If it does not run Linux.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigError(f"Horovod is built and run on Linux only; this is {sys.platform}")


def require_pip() -> None:
    """See that this environment can be installed into.

    Raises
    ------
    ConfigError
        If it has no pip.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            f"{sys.executable} has no pip, which installs Horovod: run {sys.executable} -m "
            "ensurepip, or make the environment with pip (uv venv --seed)"
        )


def require_compiler() -> None:
    """See that this machine can compile Horovod.

    Raises
    ------
    ConfigError
        If it has no C++ compiler or make.
    """
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++"]
    if not any(shutil.which(name) for name in compilers):
        raise ConfigError(
            f"building Horovod needs a C++ compiler; found none as {' or '.join(compilers)}: "
            "apt install g++ make (or the like), or set CXX"
        )
    if not (shutil.which("make") or os.environ.get("CMAKE_GENERATOR")):
        raise ConfigError("building Horovod needs make; found none: apt install make (or the like)")


def require_tensorflow() -> str:
    """Return the version of the installed TensorFlow.

    Raises
    ------
    ConfigError
        If there is none.
    """
    version = tensorflow_version()
    if version is None:
        raise ConfigError(
            f"Horovod is built for the installed TensorFlow; {sys.executable} has none: "
            "pip install tensorflow"
        )
    return version


def tensorflow_include() -> Path:
    """Return the directory of the installed TensorFlow's C++ headers, without importing it.

    Raises
    ------
    ConfigError
        If the installed TensorFlow has none.
    """
    spec = importlib.util.find_spec("tensorflow")
    for location in (spec.submodule_search_locations if spec else None) or ():
        include = Path(location, "include")
        if include.is_dir():
            return include
    raise ConfigError(
        "the installed TensorFlow has no C++ headers, which Horovod is built with: reinstall it "
        "from PyPI, pip install --force-reinstall tensorflow"
    )


def tools_to_fetch() -> list[str]:
    """Return the requirements to fetch by pip for the build alone: CMake only where it lacks."""
    return [*_PYTHON_TOOLS, *([] if _cmake_suffices() else [_CMAKE])]


def _cmake_suffices() -> bool:
    try:
        answer = subprocess.run(
            [os.environ.get("HOROVOD_CMAKE", "cmake"), "--version"],
            capture_output=True,
            text=True,
            timeout=_CMAKE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"version (\d+)\.(\d+)", answer.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= _CMAKE_AT_LEAST


def write_cmake(environ: Mapping[str, str], tools: Path) -> None:
    """Write the program that Horovod's setup takes for CMake into the directory of its tools.

    It calls the fetched CMake, the user's (``HOROVOD_CMAKE``) or that of the ``PATH``, and has it
    build what TensorFlow needs alone.
    """
    fetched = tools / "bin" / "cmake"
    cmake = str(fetched) if fetched.exists() else environ.get("HOROVOD_CMAKE") or "cmake"
    program = tools / _OWN_CMAKE
    program.write_text(_OWN_CMAKE_TEXT.format(cmake=shlex.quote(cmake)), encoding="utf-8")
    program.chmod(0o700)


def build_environment(
    environ: Mapping[str, str], tools: Path, headers: Path, temporary: Path, cores: int
) -> dict[str, str]:
    """Return the environment of the build: `environ`, and what tfos decides.

    Parameters
    ----------
    environ
        What the user set: ``HOROVOD_GPU_OPERATIONS`` and the like pass through.
    tools, headers, temporary
        The directories of the fetched tools, with what `write_cmake` wrote there, of the headers
        TensorFlow lacks and for pip's files.
    cores
        How many compilers run at a time, unless MAKEFLAGS says it.
    """
    # The interpreter's own scripts first: CMake asks `python` for TensorFlow.
    programs = (str(tools / "bin"), str(Path(sys.executable).parent), environ.get("PATH"))
    without_mpi = {} if environ.get("HOROVOD_WITH_MPI") else {"HOROVOD_WITHOUT_MPI": "1"}
    # Those of a make that called tfos speak of a job server that the build has no part in.
    outer_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL") if environ.get("MAKELEVEL") else ()
    given = {name: value for name, value in environ.items() if value and name not in outer_make}
    return {
        "MAKEFLAGS": f"-j{cores}",
        **given,
        **_FIXED,
        **without_mpi,
        "HOROVOD_CMAKE": str(tools / _OWN_CMAKE),
        "PATH": _joined(*programs),
        "PYTHONPATH": _joined(str(tools), environ.get("PYTHONPATH")),
        "CPATH": _joined(str(headers), environ.get("CPATH")),
        "TMPDIR": str(temporary),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def _joined(*paths: str | None) -> str:
    return os.pathsep.join(path for path in paths if path)
