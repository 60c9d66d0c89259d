"""The example in docs/fault-drills.md, run as a user would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "fault-drills.md"


@pytest.mark.spark
@pytest.mark.tf
@pytest.mark.zookeeper
@pytest.mark.timeout(240)
def test_the_example_passes(tmp_path):
    job, test = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "my_job.py").write_text(job)
    (tmp_path / "test_my_job.py").write_text(test)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_job.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=220,
    )
    print(found.stdout, found.stderr)
    assert found.returncode == 0
    assert "1 passed" in found.stdout
