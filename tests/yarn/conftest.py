"""Runs on YARN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drills import longest_run_s
from support.yarn_runs import INSTALLED, YarnRuns

from tfos.testing import DrillCluster
from tfos.testing.yarn import YarnCluster


@pytest.fixture
def submit(yarn: YarnCluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[YarnRuns]:
    """Runs on YARN; in a test marked ``zookeeper`` with a ZooKeeper that outlives them."""
    zookeeper = request.node.get_closest_marker("zookeeper") is not None
    limit_s = longest_run_s(request)
    with DrillCluster(tmp_path, master="yarn", zookeeper=zookeeper, limit_s=limit_s) as cluster:
        # A second process for each role, which imports TensorFlow too, for those that look at it.
        settings = tmp_path / "settings.yaml"
        settings.write_text("supervision: {standby: false}\n")
        runs = YarnRuns(yarn, cluster, (*INSTALLED, "--conf", str(settings)))
        yield runs
        cluster.assert_nothing_left()
        runs.assert_nothing_left()
