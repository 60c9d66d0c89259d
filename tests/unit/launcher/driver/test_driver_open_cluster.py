"""A run on a cluster that takes everybody says so."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

import tfos
from tfos.config import JobConfig
from tfos.errors import ConfigError


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
