"""The main job, for real: every architecture, on threads of one JVM and on separate executors."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from support.drills import TRAINING, command_line
from support.waiting import wait_for

from tfos.errors import ExitCode

APPS = Path(__file__).parent / "apps"
LINEAR = str(APPS / "linear.py")
SESSION = str(APPS / "session.py")
CLUSTER = "local-cluster[5,1,1024]"

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(500)]


def check_linear(run, *, rows=4000, epochs=2) -> dict:
    assert run.code == ExitCode.OK, run.err[-4000:]
    result = run.record["result"]
    # Every row exactly once an epoch, however Spark dealt them.
    assert result["seen"] == rows * epochs
    assert result["total"] == epochs * rows * (rows - 1) // 2
    assert result["rows"] == rows * epochs
    assert result["weights"] == pytest.approx([2, -3], abs=0.3)
    assert run.record["rows"]["train"] == rows
    assert run.record["steps"] == result["step"]
    return result


def test_local(submit):
    run = submit(LINEAR)
    result = check_linear(run)
    assert result["step"] == 160
    assert run.record["metrics"]["eval_loss"] < 0.2
    assert run.text.count("shutdown in") == 2


def test_ps(submit):
    check_linear(submit("--arch", "ps", "--num-workers", "2", "--num-ps", "2", LINEAR))


def test_ps_in_separate_executors(submit):
    run = submit("--master", CLUSTER, "--arch", "ps", "--num-workers", "2", "--num-ps", "2", LINEAR)
    check_linear(run)


@pytest.mark.parametrize(
    "program", [pytest.param("low_level", marks=pytest.mark.faults), "monitored"]
)
def test_session_in_separate_executors(submit, program):
    run = submit(
        *("--master", "local-cluster[4,1,1024]", "--arch", "session", "--num-workers", "2"),
        *("--num-ps", "1", "-p", f"program={program}", SESSION),
    )
    assert run.code == ExitCode.OK
    result = run.record["result"]
    assert result["seen"] == 6000
    assert result["total"] == 2 * 3000 * 2999 // 2


def test_session_spreads_variables_over_parameter_servers(submit):
    run = submit("--arch", "session", "--num-ps", "2", "-p", "program=low_level", SESSION)
    assert run.code == ExitCode.OK
    assert run.record["result"]["seen"] == 6000
    assert len(run.record["result"]["devices"]) == 2


@pytest.mark.parametrize("partitions", [pytest.param(1, marks=pytest.mark.faults), 7])
def test_partitions_need_not_match_the_workers(submit, partitions):
    check_linear(submit("--arch", "ps", "-p", f"partitions={partitions}", LINEAR))


def test_a_single_data_frame_is_the_training_data(submit):
    check_linear(submit("-p", "eval=no", LINEAR))


def test_stops_early_when_the_evaluation_is_good_enough(submit):
    run = submit("-p", "good=100", "-p", "epochs=5", LINEAR)
    assert run.code == ExitCode.OK
    assert run.record["result"]["stopped_early"]
    assert run.record["result"]["step"] == 80


def test_a_saved_model_appears_by_rename(submit, tmp_path):
    run = submit("--model-dir", str(tmp_path / "models"), LINEAR)
    assert run.code == ExitCode.OK
    model = Path(run.record["model"])
    assert (model / "saved_model.pb").exists()
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model.name]


# -- resume ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [pytest.param("local", marks=pytest.mark.faults), "ps"])
def test_a_second_submit_resumes_and_fresh_starts_over(submit, tmp_path, arch):
    common = ["--arch", arch, "--name", "linear", "--checkpoint-dir", str(tmp_path / "ckpt")]
    first = submit(*common, "-p", "max_steps=50", LINEAR)
    assert first.code == ExitCode.OK
    assert first.record["result"]["step"] == 50
    stopped_at = first.record["result"]["step"]
    second = submit(*common, LINEAR)
    assert second.code == ExitCode.OK
    assert second.record["resumed_from"] == first.record["checkpoint"]
    assert f"resumed from step {stopped_at}" in second.text
    result = second.record["result"]
    assert result["resumed_from"] == stopped_at
    assert result["seen"] == 8000
    assert result["total"] == 2 * 4000 * 3999 // 2
    third = submit(*common, "--fresh", "-p", "max_steps=5", LINEAR)
    assert third.record["resumed_from"] is None
    assert third.record["result"]["resumed_from"] == 0


def test_a_training_that_was_done_says_that_nothing_is_left(submit, tmp_path):
    common = ["--name", "linear", "--checkpoint-dir", str(tmp_path / "ckpt")]
    first = submit(*common, "-p", "epochs=1", LINEAR)
    assert "nothing is left" not in first.text
    second = submit(*common, "-p", "epochs=1", LINEAR)
    assert second.code == ExitCode.OK
    step = first.record["result"]["step"]
    assert f"nothing is left to train after step {step}, from which this run" in second.text
    assert "could not be found in the restored object" not in second.text


# -- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(submit, number):
    started = time.monotonic()
    process = submit.start("--arch", "ps", "-p", "slow=0.05", "-p", "epochs=1000", LINEAR)
    _await_steps(submit)
    os.kill(process.pid, number)
    run = submit.finish(process, started)
    print(run.err[-4000:])
    assert run.code == ExitCode.INTERRUPTED
    assert run.record["outcome"] == "interrupted"


def test_a_killed_client_leaves_nothing(submit):
    process = submit.start("--arch", "ps", "-p", "slow=0.05", "-p", "epochs=1000", LINEAR)
    _await_steps(submit)
    os.kill(process.pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    submit.run_ids.update(re.findall(r"tfos: run (\S+) of ", out))
    wait_for(lambda: not submit.processes(), poll_s=0.2)


def _await_steps(submit) -> None:
    def training() -> bool:
        return sum(TRAINING in command_line(process) for process in submit.processes()) >= 4

    wait_for(training, 150.0, poll_s=0.2)
    time.sleep(8)
