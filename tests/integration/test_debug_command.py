"""`tfos debug`: breakpoints in `pre_train` and `train` on the terminal it was called from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.timeout(300)]

APP = """
import sys
import tfos
from pyspark.sql import functions as F
ARGUMENTS = sys.argv[1:]
ALL = F.col("id")  # needs a session
class Sum(tfos.Job):
    def pre_train(self, spark):
        self.made_by = spark.sparkContext.master
        breakpoint()
        return spark.range(10).select(ALL)

    def train(self, ctx):
        total = sum(int(batch["id"].sum()) for batch in ctx.batches())
        breakpoint()
        raise ValueError(f"{total} {self.made_by} {self.params} {ctx.args} {ARGUMENTS}")

    def shutdown(self):
        print("shut down")
"""


def test_breakpoints_work_and_an_error_shows_its_traceback(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP)
    answer = subprocess.run(
        [
            str(Path(sys.executable).with_name("tfos")),
            *("debug", "--arch", "ps", "--num-workers", "7", "-p", "k=v", str(app), "--", "--fast"),
        ],
        input="p 'driver', spark.range(3).count()\nc\np 'here', total\nc\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert answer.returncode == 4, answer.stderr
    assert "('driver', 3)" in answer.stdout
    assert "('here', 45)" in answer.stdout
    assert answer.stdout.count("shut down") == 1
    unused, *traceback, line = [x for x in answer.stderr.splitlines() if "WARN" not in x]
    assert "not used: --arch, --num-workers" in unused
    assert "Traceback (most recent call last):" in traceback
    assert f'  File "{app}", line 16, in train' in traceback
    assert not any("/tfos/launcher/" in x for x in traceback)
    told = "ValueError: 45 local[1] {'k': 'v'} ['--fast'] ['--fast']"
    assert traceback[-1] == told
    assert line == f"tfos debug: error: {told} (app.py, line 16, in train)"
