"""What Spark's executors on YARN have that tfos counts on, asked in a bare Spark application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tfos.config import SparkConfig
from tfos.launcher.platform.spark_security import security_properties

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, pathlib
from pyspark.sql import SparkSession

def look(_):
    import os
    from tfos.files.open import open_file_system
    from tfos.launcher.platform.hadoop_conf import configuration_in_container
    before = os.environ.get("HADOOP_CONF_DIR")
    os.environ.update(configuration_in_container(os.environ, os.getcwd()))
    file_system, root, _ = open_file_system("hdfs:///", "--checkpoint-dir")
    yield before, os.environ.get("HADOOP_CONF_DIR"), file_system.ls(root, detail=False)

def arguments():
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_text()
        except OSError:
            pass

spark = SparkSession.builder.getOrCreate()
rows = spark.range(0, 1000, 1, 4).selectExpr("id % 7 as k").groupBy("k").count().count()
security = spark._jvm.org.apache.spark.SparkEnv.get().securityManager()
secret = security.getSecretKey()
print(json.dumps({
    "configuration": spark.sparkContext.parallelize([0], 1).mapPartitions(look).collect()[0],
    "encryption": {
        "rows": rows,
        "authenticates": security.isAuthenticationEnabled(),
        "encrypts": spark._jvm.org.apache.spark.SparkEnv.get().serializerManager()
            .encryptionEnabled(),
        "secret": len(secret),
        "telling": [text for text in arguments() if secret in text],
    },
}))
spark.stop()
"""


@pytest.fixture(scope="module")
def found(yarn, tmp_path_factory) -> Any:
    """What the program, an encrypted Spark application on YARN, printed last."""
    program = tmp_path_factory.mktemp("program") / "program.py"
    program.write_text(PROGRAM)
    home = Path(pyspark.__file__).parent
    given = {
        "spark.yarn.jars": f"local:{home}/jars/*",
        "spark.executor.instances": "1",
        "spark.executor.memory": "512m",
        "spark.yarn.am.memory": "512m",
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.pyspark.python": sys.executable,
        "spark.ui.enabled": "false",
        **security_properties(SparkConfig(master="yarn", encrypt=True)),
    }
    command = [str(home / "bin" / "spark-submit"), "--master", "yarn"]
    command += [word for pair in given.items() for word in ("--conf", "=".join(pair))]
    done = subprocess.run(
        [*command, str(program)],
        env={**os.environ, **yarn.environment, "SPARK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_an_executor_finds_the_configuration_that_the_submitter_had(found):
    before, directory, entries = found["configuration"]
    assert before is None
    assert directory.endswith("/__spark_conf__/__hadoop_conf__")
    assert "/user" in entries


def test_an_encrypted_application_needs_no_secret_of_the_users(found):
    encryption = found["encryption"]
    assert encryption.pop("secret") >= 32
    assert encryption == {"rows": 7, "authenticates": True, "encrypts": True, "telling": []}
