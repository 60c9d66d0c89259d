"""Which files make an application, and where they are."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import pytest

from tfos.errors import ConfigError
from tfos.launcher.application.archive import (
    ApplicationHome,
    home_of_directory,
    home_of_module,
    pack_application,
)


def names_in(directory: Path) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(pack_application(directory))) as archive:
        return sorted(archive.namelist())


def write(directory: Path, *names: str, text: str = "") -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def test_python_files_packages_and_small_data_files_travel(tmp_path):
    write(tmp_path, "app.py", "near.py", "vocabulary.txt", "notes.md", ".hidden.py")
    write(tmp_path, "package/__init__.py", "package/table.bin", "package/__pycache__/x.pyc")
    write(tmp_path, "data/huge.py", "large.csv", text="x" * ((1 << 20) + 1))
    assert names_in(tmp_path) == [
        "app.py",
        "near.py",
        "package/__init__.py",
        "package/table.bin",
        "vocabulary.txt",
    ]


@pytest.mark.parametrize(
    "line",
    ["import json, models.tower", "from models import tower", "def f():\n    import models as m"],
)
def test_a_directory_that_is_imported_is_a_package_even_without_init(tmp_path, line):
    write(tmp_path, "app.py", text=line)
    write(tmp_path, "models/tower.py", text="from layers.cross import Cross")
    write(tmp_path, "models/sizes.json", "models/weights.bin", "layers/cross.py", "other/x.py")
    assert names_in(tmp_path) == [
        "app.py",
        "layers/cross.py",
        "models/sizes.json",
        "models/tower.py",
    ]


@pytest.fixture
def nobodys():
    """A directory of a user who, unlike root, may not read everything; the test is that user."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield Path(directory)
        finally:
            os.seteuid(was)


def test_what_the_user_may_not_read_is_no_part_of_it(nobodys):
    write(nobodys, "app.py", "secret.py", "private/__init__.py", "package/__init__.py")
    write(nobodys, "package/.git/file", "package/sub/file")
    (nobodys / "private").chmod(0)
    (nobodys / "secret.py").chmod(0)
    assert names_in(nobodys) == ["app.py", "package/__init__.py", "package/sub/file"]
    (nobodys / "package" / "sub").chmod(0)
    with pytest.raises(ConfigError, match=r"you may not read \S+/package/sub"):
        pack_application(nobodys)


def test_what_is_no_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tfos.launcher.application.archive.LIMIT_BYTES", 3)
    write(tmp_path, "app.py", text="long")
    with pytest.raises(ConfigError, match="a directory of its own"):
        pack_application(tmp_path)


def test_an_installed_module_has_no_home_and_a_notebook_the_directory_it_imports_from(
    tmp_path, monkeypatch
):
    assert home_of_module(pytest) is None
    assert home_of_module(os) is None
    assert home_of_directory(tmp_path) is None
    near = types.ModuleType("near.inner")
    near.__file__ = str(tmp_path / "near" / "inner.py")
    monkeypatch.setitem(sys.modules, "near.inner", near)
    assert home_of_module(near) == ApplicationHome(tmp_path, "near.inner", ("", "near"))
    assert home_of_directory(tmp_path) == ApplicationHome(tmp_path, "__main__")
