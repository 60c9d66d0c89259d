"""`tfos.testing.SharedCluster`: several supervised runs on one Spark session and one ZooKeeper."""

from __future__ import annotations

import os

import pytest

import tfos
from tfos.errors import LaunchError
from tfos.testing import SharedCluster

pytestmark = [
    pytest.mark.spark,
    pytest.mark.tf,
    pytest.mark.zookeeper,
    pytest.mark.timeout(300),
]


class Count(tfos.Job):
    def pre_train(self, spark):
        return spark.range(100)

    def train(self, ctx):
        if self.params.get("fail"):
            raise ValueError("as asked")
        return {"rows": sum(len(batch["id"]) for batch in ctx.batches()), "pid": os.getpid()}


def test_one_session_serves_runs_that_end_well_and_runs_that_fail():
    with SharedCluster(slots=2) as cluster:
        done = cluster.run(Count())
        assert done.result["rows"] == 100
        assert done.result["pid"] != os.getpid()
        with pytest.raises(tfos.TfosError, match="ValueError: as asked") as failed:
            cluster.run(Count(), params={"fail": "yes"})
        assert failed.value.result.exit_code == 4
        assert cluster.spark.range(3).count() == 3
        with pytest.raises(LaunchError, match="has a Spark session already"), SharedCluster():
            pass
