"""Run pl_submit for real, and make sure that it leaves nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.drills import longest_run_s

from tfos.testing import DrillCluster, DrillRun

_NO_PROXY = "http://127.0.0.1:9"


class Submitter:
    """Takes the words of a pl_submit as they stand on a command line, the application last."""

    def __init__(self, cluster: DrillCluster, settings: Path) -> None:
        self._cluster = cluster
        self.run_ids = cluster.run_ids
        # Nothing here is to recover fast: standby processes, which all import TensorFlow once
        # training has begun, would only slow everything down.
        settings.write_text("supervision: {standby: false}\n")
        self._settings = ("--conf", str(settings))
        # As in most companies' networks: whatever goes by a proxy here goes nowhere.
        self._environ = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), _NO_PROXY)

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        *options, app = arguments
        return self._cluster.start(
            app, *self._settings, *options, env={**self._environ, **(env or {})}
        )

    def finish(self, process: subprocess.Popen[str]) -> DrillRun:
        return self._cluster.finish(process)

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> DrillRun:
        *options, app = arguments
        run = self._cluster.submit(
            app, *self._settings, *options, env={**self._environ, **(env or {})}
        )
        print(run.out[-6000:], run.err[-12000:], sep="\n--- stderr ---\n")
        return run

    def processes(self) -> list[psutil.Process]:
        return self._cluster.processes()


@pytest.fixture
def submit(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Submitter]:
    with DrillCluster(tmp_path, limit_s=longest_run_s(request)) as cluster:
        yield Submitter(cluster, tmp_path / "settings.yaml")
        cluster.assert_nothing_left()


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., str]:
    """Write an application file and return its path."""

    def write(source: str, name: str = "app.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write
