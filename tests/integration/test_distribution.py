"""The wheel, the sdist and the site are built from a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tfos import __version__

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path = ROOT) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-4000:]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build from a copy: setuptools leaves a build directory behind."""
    source = tmp_path_factory.mktemp("source")
    tracked = ["tfos", "pyproject.toml", "setup.py", "README.md", "LICENSE"]
    for name in tracked:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    run("build", "--no-isolation", "--outdir", str(out), cwd=source)
    return out


def test_the_wheel_holds_every_file_of_the_package(built):
    with zipfile.ZipFile(built / f"tfos-{__version__}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        points = wheel.read(f"tfos-{__version__}.dist-info/entry_points.txt").decode()
    expected = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "tfos").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if name.startswith("tfos/")} == expected
    assert {"pl_submit = tfos.cli.main:pl_submit", "tfos = tfos.cli.main:main"} <= set(
        points.splitlines()
    )


def test_the_sdist_is_enough_to_build_from(built):
    with tarfile.open(built / f"tfos-{__version__}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "tfos/py.typed"} <= names
    assert "tfos/testing/yarn/pom.xml" in names


def test_the_site_has_no_broken_link_or_reference(tmp_path):
    run("mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    reference = (tmp_path / "api.html").read_text(encoding="utf-8")
    for name in ("tfos.Job", "tfos.run", "tfos.RunResult", "tfos.testing.run_local"):
        assert f'id="{name}"' in reference
