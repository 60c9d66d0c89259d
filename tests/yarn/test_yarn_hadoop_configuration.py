"""The Hadoop configuration in containers that YARN gives no HADOOP_CONF_DIR."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
from pyspark.sql import SparkSession

def look(_):
    import os
    from tfos.fault.checkpoint_place import open_file_system
    from tfos.launcher.hadoop_configuration import hadoop_configuration
    before = os.environ.get("HADOOP_CONF_DIR")
    os.environ.update(hadoop_configuration(os.environ, os.getcwd()))
    file_system, root, _ = open_file_system("hdfs:///", "--checkpoint-dir")
    yield before, os.environ.get("HADOOP_CONF_DIR"), file_system.ls(root, detail=False)

spark = SparkSession.builder.getOrCreate()
print(json.dumps(spark.sparkContext.parallelize([0], 1).mapPartitions(look).collect()[0]))
spark.stop()
"""


@pytest.mark.spark
def test_an_executor_finds_what_the_submitter_had(yarn, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    home = Path(pyspark.__file__).parent
    properties = {
        "spark.yarn.jars": f"local:{home}/jars/*",
        "spark.executor.instances": "1",
        "spark.executor.memory": "512m",
        "spark.yarn.am.memory": "512m",
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.pyspark.python": sys.executable,
        "spark.ui.enabled": "false",
    }
    command = [str(home / "bin" / "spark-submit"), "--master", "yarn"]
    command += [word for pair in properties.items() for word in ("--conf", "=".join(pair))]
    done = subprocess.run(
        [*command, str(tmp_path / "program.py")],
        env={**os.environ, **yarn.environment, "SPARK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    before, found, entries = json.loads(done.stdout.splitlines()[-1])
    assert before is None
    assert found.endswith("/__spark_conf__/__hadoop_conf__")
    assert "/user" in entries
