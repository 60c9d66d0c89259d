"""Give tests a cluster by a pytest fixture: ``from tfos.testing.fixtures import drill_cluster``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tfos.testing.cluster import DrillCluster

__all__ = ["drill_cluster"]


@pytest.fixture
def drill_cluster(tmp_path: Path) -> Iterator[DrillCluster]:
    """Give a test a `DrillCluster`; the test fails if a run of it leaves anything behind."""
    with DrillCluster(tmp_path) as cluster:
        yield cluster
        cluster.assert_nothing_left()
