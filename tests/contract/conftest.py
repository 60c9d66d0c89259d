"""The backends that a contract is held against: of the registry, and of checkpoints."""

import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkpoint_places import Place

from tfos.registry.contract import Registry
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.identity import RunIdentity
from tfos.registry.memory import InMemoryRegistry, InMemoryRun
from tfos.registry.zookeeper import ZooKeeperRegistry

_RUNS = itertools.count()


class MemoryBackend:
    def __init__(self) -> None:
        self._run = InMemoryRun()
        self._sessions: list[InMemoryRegistry] = []

    def connect(self) -> Registry:
        self._sessions.append(self._run.connect())
        return self._sessions[-1]

    def close(self) -> None:
        for session in self._sessions:
            session.close()


class ZooKeeperBackend:
    def __init__(self, address: str, identity: RunIdentity) -> None:
        self._address = address
        self._identity = identity
        self._root = f"/tfos/contract/run-{next(_RUNS)}"
        self._sessions: list[ZooKeeperRegistry] = []

    def connect(self) -> Registry:
        session = ZooKeeperRegistry(
            self._address,
            self._root,
            "secret",
            session_timeout_s=10,
            connect_timeout_s=20,
            identity=self._identity,
        )
        self._sessions.append(session)
        return session

    def close(self) -> None:
        for session in self._sessions:
            session.close()


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[tuple[str, RunIdentity]]:
    identity = RunIdentity.draw()
    with EmbeddedZooKeeper(identity=identity, start_timeout_s=60) as server:
        yield server.address, identity


@pytest.fixture(params=["memory", pytest.param("zookeeper", marks=pytest.mark.zookeeper)])
def backend(request: pytest.FixtureRequest) -> Iterator[MemoryBackend | ZooKeeperBackend]:
    made = (
        MemoryBackend()
        if request.param == "memory"
        else ZooKeeperBackend(*request.getfixturevalue("zookeeper"))
    )
    yield made
    made.close()


@pytest.fixture(
    params=["file", "memory", pytest.param("hdfs", marks=[pytest.mark.yarn, pytest.mark.hdfs])]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place for checkpoints: local, in fsspec's memory, and on a real HDFS."""
    if request.param == "file":
        yield Place(str(tmp_path / "store"))
        return
    root = request.getfixturevalue("hdfs").record.hdfs if request.param == "hdfs" else "memory:/"
    made = Place(f"{root}/{uuid.uuid4().hex}/store")
    yield made
    if made.fs.exists(made.root):
        made.fs.rm(made.root, recursive=True)
