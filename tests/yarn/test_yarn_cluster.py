from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest
from support.waiting import wait_for

from tfos.errors import LaunchError
from tfos.testing.yarn.cluster import ClusterRecord, YarnCluster
from tfos.testing.yarn.web import ask, nodes_ready


def command_line(*words: str, directory, **options):
    command = [sys.executable, "-m", "tfos.testing.yarn", *words, "--directory", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, **options)


def settled(record: ClusterRecord, count: int) -> list[psutil.Process]:
    """Return the cluster's processes once they are so many; fails after 10 s.

    For a moment a server has a child more, the shell of a command.
    """

    def right() -> list[psutil.Process]:
        found = record.processes()
        return found if len(found) == count else []

    return wait_for(right, 10.0, poll_s=0.1)


def test_its_servers_serve(yarn):
    record = yarn.record
    assert nodes_ready(record.manager, 2)
    assert yarn.containers() == []
    assert settled(record, 2 * 5)  # each server and its guard
    home = ask(f"{record.name_node}/webhdfs/v1/?op=GETFILESTATUS")
    assert home["FileStatus"]["type"] == "DIRECTORY"


def test_people_start_and_stop_one(tmp_path):
    directory = tmp_path / "cluster"
    started = command_line("start", "--node-managers", "1", directory=directory)
    try:
        assert started.returncode == 0, started.stderr
        assert f"export HADOOP_CONF_DIR={directory}/conf\n" in started.stdout
        record = ClusterRecord.read(directory)
        assert nodes_ready(record.manager, 1)
        assert settled(record, 4)
        found = json.loads(command_line("status", directory=directory).stdout)
        assert found["processes"] >= 4
        again = command_line("start", directory=directory)
        assert "a cluster runs in" in again.stderr
        assert settled(record, 4)
    finally:
        assert command_line("stop", directory=directory).returncode == 0
    assert record.processes() == []
    assert not directory.exists()
    assert "no cluster was started in" in command_line("stop", directory=directory).stderr


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    assert "holds other files" in command_line("start", directory=tmp_path).stderr
    assert (tmp_path / "thesis.txt").exists()


def test_missing_jars_and_java_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"mvn is missing.*copy them into"):
        YarnCluster(tmp_path, jars=tmp_path / "jars").start()


def test_it_ends_with_the_process_that_started_it(tmp_path):
    program = (
        "import pathlib, sys, time; from tfos.testing.yarn import YarnCluster\n"
        "cluster = YarnCluster(pathlib.Path(sys.argv[1]), node_managers=0); cluster.start()\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    directory = tmp_path / "cluster"
    directory.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        servers = settled(ClusterRecord.read(directory), 2 * 3)
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(servers, timeout=30.0)
    assert alive == []
    assert not directory.exists()
