"""An architecture in a package that tfos knows nothing of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfos.errors import ExitCode

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_architecture"

pytestmark = [pytest.mark.spark, pytest.mark.timeout(200)]


def test_an_installed_package_adds_one(submit, tmp_path):
    # What pip builds, it leaves beside the sources.
    project = shutil.copytree(EXAMPLE, tmp_path / "project")
    installed = str(tmp_path / "installed")
    install = ("install", "-q", "--no-deps", "--no-build-isolation", "--target", installed)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, *install, str(project)], check=True)
    path = os.pathsep.join(filter(None, [installed, os.environ.get("PYTHONPATH")]))
    roles = ("--arch", "ensemble", "--num-workers", "2")
    run = submit(*roles, str(EXAMPLE / "means.py"), env={"PYTHONPATH": path})
    assert run.code == ExitCode.OK, run.err[-4000:]
    result = run.record["result"]
    assert (result["rank"], result["of"], result["rows"]) == (0, 2, 500)
    assert run.record["rows"]["train"] == 1000
