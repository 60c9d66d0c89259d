"""`tfos.testing` itself: what it says of a run, and that it sees what is left behind."""

from __future__ import annotations

import os
import subprocess
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from tfos.registry.zookeeper import ZooKeeperRegistry
from tfos.testing import CausedFault, DrillCluster, DrillRun
from tfos.testing.drill_run import read_faults


def incident(*, time: float, at: float, recovered_s: float | None = None) -> dict:
    failure = {"key": "ps-0", "message": "it died", "time": time}
    return {
        "reaction": "new_generation",
        "generation": 1,
        "step": 7,
        "at": at,
        "failures": [failure],
        "recovered_s": recovered_s,
    }


def test_announcements_are_found_in_the_order_of_time():
    text = (
        "[worker-0] W drill: stop:worker-0@feed at=12.500\n"
        "12:00 tfos: drill: kill:driver@step=7 at=11.000\nnothing: kill:ps-0@feed at=1\n"
    )
    assert read_faults(text) == (
        CausedFault("kill:driver@step=7", 11.0),
        CausedFault("stop:worker-0@feed", 12.5),
    )


def test_an_incident_counts_from_the_last_fault_before_it():
    faults = (CausedFault("kill:ps-0@feed", 10.0), CausedFault("kill:ps-0@step=5", 20.0))
    documents = [incident(time=10.5, at=11.0, recovered_s=3.0), incident(time=21.0, at=21.25)]
    first, second = DrillRun(0, "", "", {"incidents": documents}, faults).incidents
    assert (first.key, first.step) == ("ps-0", 7)
    assert (first.detected_s, first.recovered_s) == (1.0, 3.5)
    assert (second.detected_s, second.recovered_s) == (1.25, None)


def test_an_incident_without_a_fault_before_it_has_no_times():
    run = DrillRun(0, "", "", {"incidents": [incident(time=1.0, at=2.0, recovered_s=3.0)]})
    assert (run.incidents[0].detected_s, run.incidents[0].recovered_s) == (None, None)


@pytest.fixture
def cluster(tmp_path: Path):
    with DrillCluster(tmp_path, zookeeper=True) as cluster:
        yield cluster


def complaint(cluster: DrillCluster) -> str:
    with pytest.raises(AssertionError, match="left behind") as caught:
        cluster.assert_nothing_left(within_s=0.2)
    return str(caught.value)


@pytest.mark.zookeeper
def test_whatever_is_left_behind_is_told(cluster, tmp_path):
    cluster.assert_nothing_left()
    (tmp_path / "tmp" / "forgotten").touch()
    assert "forgotten" in complaint(cluster)
    (tmp_path / "tmp" / "forgotten").unlink()

    run_id = f"test-{uuid.uuid4().hex}"
    spool = Path("/dev/shm") / f"tfos-{run_id}-worker-0-0"
    spool.touch()
    try:
        cluster.assert_nothing_left()
        cluster.run_ids.add(run_id)
        assert spool.name in complaint(cluster)
    finally:
        spool.unlink()

    address = cluster.zookeeper.address
    times = {"session_timeout_s": 4.0, "connect_timeout_s": 10.0}
    with closing(ZooKeeperRegistry(address, "/tfos/left/run", "secret", **times)) as registry:
        assert "znodes" in complaint(cluster)
        registry.erase()
        cluster.assert_nothing_left()


@pytest.mark.zookeeper
def test_a_process_left_behind_is_told_and_ended(tmp_path):
    with DrillCluster(tmp_path) as cluster:
        mark = {"TFOS_TEST_MARK": cluster._mark}
        process = subprocess.Popen(["sleep", "60"], env={**os.environ, **mark})
        assert "sleep 60" in complaint(cluster)
    assert process.wait(5.0) < 0
