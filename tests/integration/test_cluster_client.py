"""How `pl_submit` follows a driver in the cluster; a script says what spark-submit would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.waiting import wait_for

from tfos.config import JobConfig
from tfos.errors import (
    ExitCode,
    InfrastructureError,
    RendezvousClosedError,
    RunTimeoutError,
    TfosError,
)
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.result import RunResult
from tfos.launcher.handover.run_directory import RunDirectory, runs_root
from tfos.launcher.platform.yarn_client import YarnClient
from tfos.launcher.submit import cluster_mode as cluster_client
from tfos.launcher.submit.cluster_mode import run_in_cluster
from tfos.registry.contract import StopNotice
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.job_lock import JobLock
from tfos.testing.leftovers import count_znodes
from tfos.topology import Endpoint

ID = "application_17_0006"
SCRIPT = f"""\
#!/bin/sh
cd "$1"
echo "INFO Client: Submitting application {ID} to ResourceManager" >&2
while :; do
  state=$(cat state)
  echo "INFO Client: Application report for {ID} (state: $state)" >&2
  case $state in
    FINISHED | FAILED | KILLED)
      printf 'INFO Client: \\n\\t diagnostics: %s\\n' "$(cat diagnostics)" >&2
      printf '\\t final status: %s\\n' "$(cat final)" >&2
      exit 1 ;;
  esac
  sleep 0.1
done
"""
LIMIT_S = 20.0


class Cluster:
    """A YARN with one application, in files that the script reads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.staging = f"file://{directory}/staging"
        self.run = RunDirectory(runs_root(self.staging), ID)
        self.room = directory / "room"
        self.room.mkdir()
        script = directory / "spark-submit"
        script.write_text(SCRIPT)
        script.chmod(0o700)
        self.command = [str(script), str(directory)]
        self.deaf = False
        self.becomes("ACCEPTED")

    def becomes(self, state: str, final: str = "UNDEFINED", diagnostics: str = "") -> None:
        for name, text in (("final", final), ("diagnostics", diagnostics), ("state", state)):
            aside = self.directory / f".{name}"
            aside.write_text(text)
            aside.rename(self.directory / name)

    def kill(self, application: str) -> None:
        assert application == ID
        if self.deaf:
            raise InfrastructureError("YARN does not answer")
        self.becomes("KILLED", "KILLED", "Application was killed by user me")

    def follow(self, **supervision: object) -> RunResult | None:
        config = JobConfig.model_validate({"name": "clicks", "supervision": supervision})
        return run_in_cluster(
            self.command,
            config,
            environ=os.environ,
            staging=self.staging,
            directory=str(self.room),
        )


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Cluster(tmp_path)
    monkeypatch.setattr(YarnClient, "open", lambda: contextlib.nullcontext(made))
    return made


def test_a_run_that_has_ended_does_not_wait_for_another_container(cluster, monkeypatch):
    monkeypatch.setattr(cluster_client, "ANOTHER_DRIVER_WITHIN_S", 0.5)
    hear = cluster_client.SubmitOutput.hear

    def heard(self, line):
        state = hear(self, line)
        if state == "ACCEPTED" and not cluster.run.read():
            cluster.becomes("RUNNING")
        if state == "RUNNING":
            cluster.run.write(RunResult(outcome="failed", exit_code=ExitCode.USER_CODE))
            cluster.becomes("ACCEPTED")
        return state

    monkeypatch.setattr(cluster_client.SubmitOutput, "hear", heard)
    record = cluster.follow()
    assert record is not None
    assert record.exit_code == ExitCode.USER_CODE
    assert (cluster.directory / "final").read_text() == "KILLED"
    assert cluster.run.read() is None


@pytest.mark.parametrize(("deaf", "says"), [(False, "it was killed"), (True, "may still run")])
def test_the_queue_counts_for_the_timeout(cluster, deaf, says):
    cluster.deaf = deaf
    begin = time.monotonic()
    with pytest.raises(RunTimeoutError, match=f"past --timeout 5 s .*{says}"):
        cluster.follow(timeout_s=5, grace_s=1)
    assert time.monotonic() - begin < LIMIT_S


def test_the_submission_counts_for_the_timeout(cluster):
    cluster.command = ["/bin/sleep", "60"]
    with pytest.raises(RunTimeoutError, match="not taken the application within --timeout 1 s"):
        cluster.follow(timeout_s=1, grace_s=1)


@pytest.mark.parametrize(
    ("diagnostics", "code", "says"),
    [
        ("User application exited with status 4", ExitCode.USER_CODE, "without a record"),
        ("User application exited with status 99", ExitCode.INFRASTRUCTURE, "without a record"),
        ("the node was lost", ExitCode.INFRASTRUCTURE, "the node was lost"),
        (
            "Container is running 65MB beyond the 'PHYSICAL' memory limit. Current usage: 2.1 GB "
            "of 2 GB physical memory used; 4 GB of 4 GB virtual memory used.",
            ExitCode.RESOURCES,
            "2.1 GB of 2 GB; .*spark.driver.memoryOverhead",
        ),
    ],
)
def test_without_a_record_yarn_is_believed(cluster, diagnostics, code, says):
    cluster.becomes("FINISHED", "FAILED", diagnostics)
    with pytest.raises(TfosError, match=says) as told:
        cluster.follow()
    assert told.value.exit_code == code


@pytest.fixture
def zookeeper():
    server = EmbeddedZooKeeper("127.0.0.1")
    server.start()
    yield server
    server.stop()


@pytest.mark.zookeeper
def test_what_a_killed_driver_left_in_zookeeper_is_removed(cluster, zookeeper):
    endpoint = Endpoint.parse(zookeeper.address)
    before = count_znodes(endpoint.host, endpoint.port)
    # Its lock goes with its session, some time after it.
    held = JobLock(
        zookeeper.address,
        "/tfos/clicks/lock",
        holder={},
        session_timeout_s=10.0,
        connect_timeout_s=10.0,
        on_lost=print,
    )
    held.__enter__()
    address = RegistryAddress(zookeeper.address, "/tfos/clicks/17", "s", 10.0, 10.0)
    with contextlib.closing(address.connect(create=True)) as driver:
        cluster.run.note_registry(address)
        cluster.becomes("KILLED", "KILLED", "by user me")
        end = threading.Timer(1.0, held.__exit__)
        end.start()
        with pytest.raises(TfosError, match="was killed in YARN"):
            cluster.follow()
        end.join()
        with pytest.raises(RendezvousClosedError):
            driver.stop(StopNotice("failed", "asked"))
    assert count_znodes(endpoint.host, endpoint.port) == before
    assert not list(Path(cluster.staging.removeprefix("file://")).rglob("*.json"))


@pytest.mark.usefixtures("s3")
def test_the_way_to_what_a_driver_leaves_lies_on_s3_too():
    address = RegistryAddress("h:1", "/tfos/clicks/17", "s", 10.0, 10.0)
    directory = RunDirectory("s3://clicks/runs", ID)
    directory.note_registry(address)
    assert directory.registry() == address
    directory.remove()
    assert directory.registry() is None


def test_a_success_stays_one_without_its_record(cluster):
    cluster.becomes("FINISHED", "SUCCEEDED")
    record = cluster.follow()
    assert record is not None
    assert (record.outcome, record.exit_code) == ("done", 0)


def test_nothing_follows_the_application_of_a_client_that_was_killed(cluster):
    program = (
        "import os, sys; from tfos.config import JobConfig\n"
        "from tfos.launcher.submit.cluster_mode import run_in_cluster\n"
        "run_in_cluster(sys.argv[1:3], JobConfig(), environ=os.environ, staging=sys.argv[3],"
        " directory=sys.argv[4])"
    )
    argv = [sys.executable, "-c", program, *cluster.command, cluster.staging, str(cluster.room)]
    with subprocess.Popen(argv) as client:
        found: list[psutil.Process] = []

        def started() -> bool:
            found[:] = psutil.Process(client.pid).children(recursive=True)
            return any(cluster.command[0] in each.cmdline() for each in found)

        wait_for(started, LIMIT_S)
        client.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(each.is_running() for each in found), LIMIT_S)
    wait_for(lambda: not cluster.room.exists(), LIMIT_S)
