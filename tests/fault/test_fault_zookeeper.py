"""ZooKeeper beside a run: one run per job name, bounced servers, lost members, dead drivers."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.drills import command_line, longest_run_s
from support.ensemble import Ensemble
from support.waiting import wait_for

from tfos.errors import ExitCode
from tfos.testing import DrillCluster, DrillRun

APP = Path(__file__).parents[1] / "e2e" / "apps" / "plain.py"
SEEN_AN_EPOCH, STEPS_AN_EPOCH, BATCH = 4000, 80, 50
EVERY = 5
PATIENT_S = 30
"""A session longer than servers take to come back, on a busy machine too."""

pytestmark = [pytest.mark.spark, pytest.mark.zookeeper, pytest.mark.timeout(420)]


@pytest.fixture
def job(tmp_path: Path) -> Callable[[float], tuple[str, ...]]:
    """Give the options of a job whose session lasts for so many seconds."""

    def options(session_s: float) -> tuple[str, ...]:
        configuration = tmp_path / "session.yaml"
        configuration.write_text(f"registry: {{session_timeout_s: {session_s}}}")
        kept = ("--checkpoint-dir", str(tmp_path / "checkpoints"), "-p", f"every={EVERY}")
        return ("--arch", "plain", "--conf", str(configuration), *kept)

    return options


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DrillCluster]:
    (tmp_path / "runs").mkdir()
    limit_s = longest_run_s(request)
    with DrillCluster(tmp_path / "runs", zookeeper=True, limit_s=limit_s) as cluster:
        yield cluster
        cluster.assert_nothing_left(within_s=15.0)


@contextmanager
def running(
    cluster: DrillCluster, *options: str, record: Path
) -> Iterator[Callable[..., DrillRun]]:
    """Start a run, wait until it has saved a checkpoint; gives the call that awaits its end.

    That call takes a signal to send before.
    """
    process = cluster.start(APP, *options, "--result-json", str(record))
    ended: list[DrillRun] = []
    # Its output must be read all along.
    waiting = threading.Thread(target=lambda: ended.append(cluster.finish(process)))
    waiting.start()
    try:
        checkpoints = Path(options[options.index("--checkpoint-dir") + 1])

        def saved() -> list[Path]:
            assert waiting.is_alive()
            return list(checkpoints.glob("*/ckpt-*/COMMITTED"))

        wait_for(saved, 180.0)

        def finish(number: signal.Signals | None = None) -> DrillRun:
            if number is not None:
                process.send_signal(number)
            waiting.join()
            assert ended, "the run did not end"
            print(ended[0].text[-8000:])
            return ended[0]

        yield finish
    finally:
        if waiting.is_alive():
            process.send_signal(signal.SIGTERM)
            waiting.join(60.0)


def check_complete(run: DrillRun, record: Path, epochs: int) -> None:
    assert run.code == ExitCode.OK
    told = json.loads(record.read_text())
    assert told["restarts"] == 0
    assert told["result"]["step"] == epochs * STEPS_AN_EPOCH
    assert told["result"]["seen"] == epochs * SEEN_AN_EPOCH


def run_id(checkpoints: Path) -> str:
    manifest = next(checkpoints.glob("*/ckpt-*/MANIFEST.json"))
    return json.loads(manifest.read_text())["run_id"]


def test_a_second_run_names_the_first_and_a_bounced_server_disturbs_no_training(
    cluster, job, tmp_path
):
    record, checkpoints = tmp_path / "first.json", tmp_path / "checkpoints"

    def latest() -> str:
        return max(path.name for path in checkpoints.glob("*/ckpt-*"))

    # Longer than any machine takes to refuse the second.
    endless = ("-p", "slow=0.05", "-p", "epochs=10000")
    with running(cluster, *job(PATIENT_S), *endless, record=record) as finish:
        second = cluster.submit(APP, *job(PATIENT_S))
        assert second.code == ExitCode.ALREADY_RUNNING
        assert f"run {run_id(checkpoints)}" in second.text
        assert cluster.zookeeper is not None
        cluster.zookeeper.restart()
        before = latest()
        wait_for(lambda: latest() > before, 60.0)
        assert finish(signal.SIGTERM).code == ExitCode.INTERRUPTED
    assert json.loads(record.read_text())["restarts"] == 0


def test_what_a_killed_driver_leaves_ends_and_a_resubmit_resumes(cluster, job, tmp_path):
    checkpoints, record, options = tmp_path / "checkpoints", tmp_path / "first.json", job(10)
    slow = ("-p", "slow=0.5", "-p", "epochs=1000")
    with running(cluster, *options, *slow, record=record) as finish:
        (driver,) = [p for p in cluster.processes() if "driver_script.py" in _python_script(p)]
        driver.kill()
        first = finish()
    assert first.code == ExitCode.INFRASTRUCTURE

    def all_gone() -> bool:
        left = [words for process in cluster.processes() if (words := command_line(process))]
        assert left == [], left
        return True

    wait_for(all_gone, poll_s=0.1, not_yet=AssertionError)
    # Its lock frees itself: the next run waits for that, however soon it comes.
    second = cluster.submit(APP, *options)
    assert second.code == ExitCode.OK
    assert second.record["resumed_from"].startswith(str(checkpoints))
    assert second.record["result"]["seen"] == 2 * SEEN_AN_EPOCH + BATCH


def _python_script(process: psutil.Process) -> str:
    words = command_line(process)
    return words[1] if len(words) > 1 and "python" in words[0] else ""


def test_training_goes_on_when_a_member_of_the_ensemble_dies(job, tmp_path, request):
    record = tmp_path / "run.json"
    (tmp_path / "runs").mkdir()
    (tmp_path / "servers").mkdir()
    runs = DrillCluster(tmp_path / "runs", limit_s=longest_run_s(request))
    with Ensemble(3, tmp_path / "servers") as servers, runs as cluster:
        options = (*job(PATIENT_S), "--zookeeper", servers.hosts)
        with running(cluster, *options, "-p", "slow=0.1", record=record) as finish:
            servers.kill(servers.leader())
            check_complete(finish(), record, epochs=2)
        cluster.assert_nothing_left()
