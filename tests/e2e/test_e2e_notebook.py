"""`tfos.run` on a session that is the caller's own, as a notebook does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(200)]

NOTEBOOK = """
import json
import os
import sys
from pathlib import Path
import tfos
from pyspark.sql import SparkSession, functions as F

spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
same = F.udf(lambda x: x, "bigint")

class Count(tfos.Job):
    def pre_train(self, spark):
        return spark.range(1000).select(same("id").alias("id"))

    def train(self, ctx):
        if self.params.get("fail"):
            raise ValueError("as asked")
        import tensorflow as tf

        model = tf.Module()
        model.weight = tf.Variable(2.0)
        ctx.checkpoints.save(1, lambda directory: (Path(directory) / "state").write_text("1"))
        ctx.export(model)
        return sum(len(batch["id"]) for batch in ctx.batches(epochs=2))

paths = {"model_dir": "m", "checkpoints": {"dir": Path("ck")}, "result_json": "r.json"}
done = tfos.run(Count(), spark, tfos.JobConfig(**paths))
try:
    tfos.run(Count(), spark, tfos.JobConfig(params={"fail": "yes"}))
except tfos.TfosError as error:
    failed = error.result
try:
    tfos.run(Count(), spark, tfos.JobConfig(arch="ps"))
except tfos.TfosError as error:
    refused = error
class Again(tfos.Job):
    def pre_train(self, spark):
        tfos.run(Count(), spark, one_place)

one_place = tfos.JobConfig(name="count", checkpoints={"dir": sys.argv[1], "fresh": True})
try:
    tfos.run(Again(), spark, one_place)
except tfos.TfosError as error:
    second = error
print(json.dumps([
    done.result, done.rows, failed.exit_code, failed.error, type(refused).__name__,
    second.result.exit_code, str(second), os.listdir(f"{sys.argv[1]}/count"),
    spark.range(3).count(),
]))
"""


def test_a_notebook_runs_jobs_on_its_own_session(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path)],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    told = json.loads(found.stdout.splitlines()[-1])
    result, rows, code, error, refused, second, why, left, alive = told
    assert (result, rows) == (2000, {"train": 1000})
    assert (code, error) == (4, "chief-0: ValueError: as asked")
    assert refused == "InsufficientExecutorsError"
    # A run within another's pre_train, on the same checkpoints: nothing of them was removed.
    assert (second, left) == (7, [])
    assert "this job is already running (run " in why
    assert alive == 3
    # Relative paths lead beside the notebook, and what the record names is there after the run.
    record = json.loads((tmp_path / "r.json").read_text())
    assert Path(record["model"]).parent == tmp_path / "m"
    assert Path(record["model"], "saved_model.pb").is_file()
    assert Path(record["checkpoint"]).is_relative_to(tmp_path / "ck")
    assert Path(record["checkpoint"], "state").is_file()
