"""pytest fixtures for jobs, to import in ``conftest.py``; see docs/testing.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tfos.testing.cluster import DrillCluster
from tfos.testing.shared_cluster import SharedCluster

__all__ = ["drill_cluster", "shared_cluster"]


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[SharedCluster]:
    """Give the tests of a session one `SharedCluster`: it starts once, each run takes seconds."""
    with SharedCluster() as cluster:
        yield cluster


@pytest.fixture
def drill_cluster(tmp_path: Path) -> Iterator[DrillCluster]:
    """Give a test a `DrillCluster`; the test fails if a run of it leaves anything behind."""
    with DrillCluster(tmp_path) as cluster:
        yield cluster
        cluster.assert_nothing_left()
