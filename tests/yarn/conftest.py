"""One YARN and HDFS for every test here: starting it takes longer than most of them."""

from __future__ import annotations

import os
import shutil

import pytest
from services import tell_missing

from tfos.errors import LaunchError
from tfos.testing.yarn import YarnCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "yarn":
            item.add_marker(pytest.mark.yarn)


@pytest.fixture(scope="session")
def yarn(tmp_path_factory: pytest.TempPathFactory):
    """A cluster of two NodeManagers."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        tell_missing("no Java is found: install Java 17, or set JAVA_HOME")
    cluster = YarnCluster(tmp_path_factory.mktemp("yarn"))
    try:
        cluster.start()
    except LaunchError as error:
        tell_missing(f"YARN and HDFS do not start: {error}")
    yield cluster
    cluster.stop()
