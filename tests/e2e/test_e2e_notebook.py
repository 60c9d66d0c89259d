"""`tfos.run` on a session that is the caller's own, as a notebook does it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(300)]

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
        rows = spark.range(1000).select(same("id").alias("id"))
        how = self.params.get("rows")
        if how == "stream":
            return spark.readStream.format("rate").load()
        if how == "unplanned":
            return spark.sql("select cast('x' as int) as y from range(10)")
        if how == "bad_udf":
            return rows.withColumn("z", F.udf(lambda x: 1 // (x - 700), "long")("id"))
        if how == "stop":
            spark.stop()
        return rows

    def train(self, ctx):
        if self.params.get("fail"):
            raise ValueError("as asked")
        import tensorflow as tf

        model = tf.Module()
        model.weight = tf.Variable(2.0)
        ctx.checkpoints.save(1, lambda directory: (Path(directory) / "state").write_text("1"))
        ctx.export(model)
        return sum(len(batch["id"]) for batch in ctx.batches(epochs=2))

def error_of(**options):
    try:
        tfos.run(Count(), spark, **options)
    except tfos.TfosError as error:
        return error

paths = {"model_dir": "m", "checkpoints": {"dir": Path("ck")}, "result_json": "r.json"}
done = tfos.run(Count(), spark, tfos.JobConfig(**paths))
failed = error_of(params={"fail": "yes"})
refused = error_of(arch="ps")
class Again(Count):
    def pre_train(self, spark):
        tfos.run(Count(), spark, one_place)

one_place = tfos.JobConfig(name="count", checkpoints={"dir": sys.argv[1], "fresh": True})
try:
    tfos.run(Again(), spark, one_place)
except tfos.TfosError as error:
    second = error
rows = {how: error_of(params={"rows": how}) for how in ("stream", "unplanned", "bad_udf")}
alive = spark.range(3).count()
rows["stop"] = error_of(params={"rows": "stop"})
print(json.dumps([
    done.result, done.rows, failed.result.exit_code, failed.result.error,
    getattr(failed, "__notes__", failed.args[0].splitlines()[1:])[0], type(refused).__name__,
    second.result.exit_code, str(second), os.listdir(f"{sys.argv[1]}/count"),
    alive, {how: (error.result.exit_code, error.result.error) for how, error in rows.items()},
    rows["bad_udf"].result.to_json()["failures"],
]))
"""


def outside_of_the_environment() -> dict[str, str]:
    """Return an environment in which ``python3`` is not this interpreter."""
    here = str(Path(sys.executable).parent)
    path = [place for place in os.environ["PATH"].split(os.pathsep) if place != here]
    environ = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    return {**environ, "PATH": os.pathsep.join(path)}


def test_a_notebook_runs_jobs_on_its_own_session(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path)],
        env=outside_of_the_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    told = json.loads(found.stdout.splitlines()[-1])
    result, rows, code, error, note, refused, second, why, left, alive, others, of_udf = told
    assert (result, rows) == (2000, {"train": 1000})
    assert (code, error.partition(" (")[0]) == (4, "chief-0: ValueError: as asked")
    assert 'raise ValueError("as asked")' in note or "in train" in note
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
    # The same lines as on the terminal.
    assert re.search(r"tfos: run \S+ of Count", found.stderr)
    # What a user of Spark can get wrong in pre_train.
    assert [others[how][0] for how in ("stream", "unplanned", "bad_udf", "stop")] == [2, 4, 4, 2]
    assert "streaming DataFrame" in others["stream"][1]
    assert "CAST_INVALID_INPUT" in others["unplanned"][1]
    assert "stopped the Spark session" in others["stop"][1]
    # The query's error comes first; what a role host met by it is no failure of its own.
    assert "ZeroDivisionError" in of_udf[0]["message"]
    assert of_udf[0]["cause"] == "user_code"
    assert "ArrowInvalid" not in json.dumps(of_udf)
