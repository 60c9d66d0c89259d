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

APPS = Path(__file__).parents[1] / "e2e" / "apps"
APP = APPS / "linear.py"
ROWS, EPOCHS = 6000, 2
JOB = (
    *("--arch", "ps", "--num-ps", "1", "--num-workers", "1"),
    *("-p", f"rows={ROWS}", "-p", "slow=0.03", "-p", "eval=no"),
)
CONFIGURATION = (
    "{checkpoints: {every_s: 1}, registry: {session_timeout_s: 10}, supervision: {standby: false}}"
)

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(420)]


@pytest.fixture
def job(tmp_path: Path) -> tuple[str, ...]:
    configuration = tmp_path / "fast.yaml"
    configuration.write_text(CONFIGURATION)
    return (*JOB, "--conf", str(configuration), "--checkpoint-dir", str(tmp_path / "checkpoints"))


@pytest.fixture
def patient(job: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    """The job, with a session longer than servers take to come back, on a busy machine too."""
    configuration = tmp_path / "patient.yaml"
    configuration.write_text("registry: {session_timeout_s: 30}")
    return (*job, "--conf", str(configuration))


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DrillCluster]:
    (tmp_path / "runs").mkdir()
    limit_s = longest_run_s(request)
    with DrillCluster(tmp_path / "runs", zookeeper=True, limit_s=limit_s) as cluster:
        yield cluster
        cluster.assert_nothing_left(within_s=15.0)


@contextmanager
def running(
    cluster: DrillCluster, *options: str, record: Path, app: Path = APP
) -> Iterator[Callable[..., DrillRun]]:
    """Start a run, wait until it has saved a checkpoint; gives the call that awaits its end.

    That call takes a signal to send before.
    """
    process = cluster.start(app, *options, "--result-json", str(record))
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


def check_complete(run: DrillRun, record: Path, restarts: int = 0) -> None:
    assert run.code == ExitCode.OK
    told = json.loads(record.read_text())
    assert told["restarts"] == restarts
    assert told["result"]["seen"] >= EPOCHS * ROWS


def run_id(checkpoints: Path) -> str:
    manifest = next(checkpoints.glob("*/ckpt-*/MANIFEST.json"))
    return json.loads(manifest.read_text())["run_id"]


def test_a_second_run_names_the_first_and_a_bounced_server_disturbs_no_training(
    cluster, patient, tmp_path
):
    record, checkpoints = tmp_path / "first.json", tmp_path / "checkpoints"

    def latest() -> str:
        return max(path.name for path in checkpoints.glob("*/ckpt-*"))

    # Longer than any machine takes to refuse the second.
    with running(cluster, *patient, "-p", "epochs=10000", record=record) as finish:
        second = cluster.submit(APP, *patient)
        assert second.code == ExitCode.ALREADY_RUNNING
        assert f"run {run_id(checkpoints)}" in second.text
        assert cluster.zookeeper is not None
        cluster.zookeeper.restart()
        before = latest()
        wait_for(lambda: latest() > before, 60.0)
        assert finish(signal.SIGTERM).code == ExitCode.INTERRUPTED
    assert json.loads(record.read_text())["restarts"] == 0


def test_what_a_killed_driver_leaves_ends_and_a_resubmit_resumes(cluster, tmp_path):
    checkpoints, record = tmp_path / "checkpoints", tmp_path / "first.json"
    configuration = tmp_path / "fast.yaml"
    configuration.write_text(CONFIGURATION)
    job = ("--arch", "plain", "-p", "every=5", "--conf", str(configuration))
    job += ("--checkpoint-dir", str(checkpoints))
    slow = ("-p", "slow=0.5", "-p", "epochs=1000")
    with running(cluster, *job, *slow, record=record, app=APPS / "plain.py") as finish:
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
    second = cluster.submit(APPS / "plain.py", *job)
    assert second.code == ExitCode.OK
    assert second.record["resumed_from"].startswith(str(checkpoints))
    assert second.record["result"]["seen"] == 2 * 4000 + 50


def _python_script(process: psutil.Process) -> str:
    words = command_line(process)
    return words[1] if len(words) > 1 and "python" in words[0] else ""


def test_training_goes_on_when_a_member_of_the_ensemble_dies(patient, tmp_path, request):
    record = tmp_path / "run.json"
    (tmp_path / "runs").mkdir()
    (tmp_path / "servers").mkdir()
    runs = DrillCluster(tmp_path / "runs", limit_s=longest_run_s(request))
    with Ensemble(3, tmp_path / "servers") as servers, runs as cluster:
        options = (*patient, "--zookeeper", servers.hosts)
        with running(cluster, *options, record=record) as finish:
            servers.kill(servers.leader())
            check_complete(finish(), record)
        cluster.assert_nothing_left()
