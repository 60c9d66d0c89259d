"""Signals from elsewhere: a training process that somebody ends has died, and is not done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.drills import TRAINING, longest_run_s
from support.waiting import wait_for

from tfos.errors import ExitCode
from tfos.testing import DrillCluster, DrillRun

APP = Path(__file__).parents[1] / "e2e" / "apps" / "linear.py"
ROWS, EPOCHS = 4000, 2

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(300)]


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DrillCluster]:
    (tmp_path / "runs").mkdir()
    with DrillCluster(tmp_path / "runs", limit_s=longest_run_s(request)) as cluster:
        yield cluster
        cluster.assert_nothing_left()


def first_training_process(cluster: DrillCluster) -> psutil.Process | None:
    for process in cluster.processes():
        try:
            module = TRAINING in process.cmdline()
            if module and Path(process.cwd()).name == "process-1":
                return process
        except psutil.Error:
            continue
    return None


def test_sigterm_from_elsewhere_is_a_death(cluster, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    settings = tmp_path / "fast.yaml"
    settings.write_text("checkpoints: {every_s: 1}")
    options = ("--conf", str(settings), "--checkpoint-dir", str(checkpoints))
    process = cluster.start(APP, *options, "-p", f"rows={ROWS}", "-p", "slow=0.05")
    ended: list[DrillRun] = []
    waiting = threading.Thread(target=lambda: ended.append(cluster.finish(process)))
    waiting.start()
    wait_for(lambda: list(checkpoints.glob("*/ckpt-*/COMMITTED")), 120.0)
    victim = first_training_process(cluster)
    assert victim is not None
    victim.send_signal(signal.SIGTERM)
    waiting.join()
    (run,) = ended
    print(run.text[-6000:])
    assert run.code == ExitCode.OK
    assert [incident.reaction for incident in run.incidents] == ["new_generation"]
    assert run.record["result"]["seen"] == EPOCHS * ROWS
