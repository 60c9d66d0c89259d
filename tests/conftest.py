"""Fixtures of all tests; what else several kinds of test share is in the package `support`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fault_table import FaultTable
from support.services import tell_missing
from support.spark_classes import jvm_options
from support.telling import Telling
from support.tiers import Tiers

from tfos.java import QUICK_JVM

if TYPE_CHECKING:
    from support.in_session import InSession

    from tfos.testing.yarn import YarnCluster

if "TFOS_FAULT_TABLE" not in os.environ:
    # Spark's JVMs live for seconds here: the optimizing compiler would take half of all CPU time,
    # and loading classes half of the rest. What the documents show is measured without this.
    classes = Path(__file__).parents[1] / ".cache" / "spark-classes.jsa"
    options = " ".join([*QUICK_JVM, *jvm_options(classes)])
    os.environ.setdefault("JAVA_TOOL_OPTIONS", options)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers())
    # Under nohup, or in the background of a script, these are ignored, by what tests start too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs_java = item.get_closest_marker("zookeeper") or item.get_closest_marker("spark")
    if needs_java and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        tell_missing("no Java is found: install Java 17, or set JAVA_HOME")


@pytest.fixture
def telling() -> Telling:
    """What an environment's packing and upload tell their progress to."""
    return Telling()


@pytest.fixture(scope="session")
def table() -> FaultTable | None:
    """What faults were seen to do, for the documents; None where nobody asked for it."""
    path = os.environ.get("TFOS_FAULT_TABLE")
    return None if path is None else FaultTable(Path(path))


@pytest.fixture(scope="session")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YarnCluster]:
    """One YARN of two NodeManagers and HDFS for all tests: starting it takes longer than most."""
    # One node alone has room for every role: tests take the other away.
    yield from _cluster(tmp_path_factory.mktemp("yarn"), memory_mb=9216)


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YarnCluster]:
    """One HDFS, with a YARN that runs nothing, for all tests of files there."""
    yield from _cluster(tmp_path_factory.mktemp("hdfs"), node_managers=0)


def _cluster(directory: Path, **options: int) -> Iterator[YarnCluster]:
    from tfos.errors import LaunchError
    from tfos.testing.yarn import YarnCluster

    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        tell_missing("no Java is found: install Java 17, or set JAVA_HOME")
    cluster = YarnCluster(directory, **options)
    try:
        cluster.start()
    except LaunchError as error:
        tell_missing(f"YARN and HDFS do not start: {error}")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InSession]:
    """One Spark session and one ZooKeeper for a module, most of whose tests run jobs."""
    from support.in_session import InSession

    with InSession(tmp_path_factory.mktemp("session")) as session:
        yield session


@pytest.fixture
def in_session(session: InSession) -> Iterator[InSession]:
    """As `submit`, on the module's own Spark session: where the way there is not the matter."""
    yield session
    session.assert_nothing_left()
