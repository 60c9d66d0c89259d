"""A run whose Spark connections are authenticated and encrypted, executors in JVMs of their own."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

import tfos
from tfos.config import JobConfig
from tfos.errors import ConfigError, ExitCode

SECRET = "not-in-any-argument-1f0c"
APP = """
import pathlib
import tfos

class EncryptedJob(tfos.Job):
    def pre_train(self, spark):
        found = dict(spark.sparkContext.getConf().getAll())
        self.found = {name: found.get(name) for name in (
            "spark.authenticate", "spark.network.crypto.enabled", "spark.io.encryption.enabled"
        )}
        return spark.range(0, 4000, 1, 5).selectExpr("id", "id % 7 as k").repartition(3, "k")

    def train(self, ctx):
        rows = sum(len(batch["id"]) for batch in ctx.batches()) if ctx.role == "worker" else 0
        secret = pathlib.Path(self.params["secret"]).read_bytes()
        telling = []
        for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                telling += [file.read_text()] if secret in file.read_bytes() else []
            except OSError:
                pass
        return {"found": self.found, "rows": rows, "telling": telling}
"""


@pytest.mark.spark
@pytest.mark.tf
@pytest.mark.zookeeper
@pytest.mark.timeout(300)
def test_an_encrypted_run_on_executors_of_their_own(submit, app, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    settings = tmp_path / "secret.yaml"
    settings.write_text(f"spark:\n  conf:\n    spark.authenticate.secret: {SECRET}\n")
    run = submit(
        *("--master", "local-cluster[4,1,1024]", "--arch", "ps", "--encrypt"),
        *("--conf", str(settings), "-p", f"secret={tmp_path / 'secret'}", app(APP)),
    )
    assert run.code == ExitCode.OK, run.err[-4000:]
    result = run.record["result"]
    assert set(result["found"].values()) == {"true"}
    assert len(result["found"]) == 3
    assert result["telling"] == []
    assert sum(run.record["rows"].values()) == 4000
    assert SECRET not in run.out + run.err


class OpenJob(tfos.Job):
    def pre_train(self, spark):
        raise AssertionError("refused before")

    def train(self, ctx):
        raise AssertionError("refused before")


class Cluster:
    """As much of a Spark session as a run looks at before it starts anything."""

    def __init__(self, properties: dict[str, str]) -> None:
        conf = SimpleNamespace(getAll=properties.items, get=properties.get)
        self.sparkContext = SimpleNamespace(master="spark://h:7077", getConf=lambda: conf)


@pytest.mark.parametrize(("authenticate", "warned"), [("false", True), ("true", False)])
def test_a_run_on_an_open_cluster_is_warned(authenticate, warned, caplog):
    config = JobConfig.model_validate({"checkpoints": {"fresh": True}})
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match="--fresh removes"):
        tfos.run(OpenJob(), Cluster({"spark.authenticate": authenticate}), config)
    assert ("spark.authenticate is off" in caplog.text) is warned
