"""The main job, for real: every architecture, on threads of one JVM and on separate executors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.waiting import wait_for

from tfos.errors import ExitCode

APPS = Path(__file__).parent / "apps"
LINEAR, PLAIN = str(APPS / "linear.py"), str(APPS / "plain.py")
SESSION = str(APPS / "session.py")
CLUSTER = "local-cluster[5,1,1024]"
SECRET = "not-in-any-argument-1f0c"

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


def test_local_and_its_model(submit, tmp_path):
    run = submit("--model-dir", str(tmp_path / "models"), LINEAR)
    result = check_linear(run)
    assert result["step"] == 160
    assert run.record["metrics"]["eval_loss"] < 0.2
    assert run.text.count("shutdown in") == 2
    model = Path(run.record["model"])
    assert (model / "saved_model.pb").exists()
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model.name]


@pytest.mark.faults
def test_ps_in_separate_executors_on_one_partition(submit):
    roles = ("--arch", "ps", "--num-workers", "2", "--num-ps", "2")
    check_linear(submit("--master", CLUSTER, *roles, "-p", "partitions=1", LINEAR))


def test_ps_in_separate_executors_encrypted_partitions_need_not_match_the_workers(submit, tmp_path):
    secret, settings = tmp_path / "secret", tmp_path / "secret.yaml"
    secret.write_text(SECRET)
    settings.write_text(f"spark:\n  conf:\n    spark.authenticate.secret: {SECRET}\n")
    roles = ("--arch", "ps", "--num-workers", "2", "--num-ps", "1")
    encrypted = ("--encrypt", "--conf", str(settings), "-p", f"secret={secret}")
    run = submit("--master", CLUSTER, *roles, *encrypted, str(APPS / "encrypted.py"))
    result = check_linear(run)
    assert list(result["found"].values()) == ["true"] * 3
    assert result["telling"] == []
    assert SECRET not in run.text


@pytest.mark.parametrize(
    "program", [pytest.param("low_level", marks=pytest.mark.faults), "monitored"]
)
def test_session_programs(in_session, program):
    roles = ("--arch", "session", "--num-workers", "2", "--num-ps", "2")
    run = in_session(*roles, "-p", f"program={program}", SESSION)
    assert run.code == ExitCode.OK
    result = run.record["result"]
    assert result["seen"] == 6000
    assert result["total"] == 2 * 3000 * 2999 // 2
    # Its variables are spread over both parameter servers.
    assert len(result["devices"]) == 2


# -- resume ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [pytest.param("local", marks=pytest.mark.faults), "ps"])
def test_a_second_submit_resumes_in_the_middle_of_an_epoch(in_session, tmp_path, arch):
    kept = ("--name", "linear", "--checkpoint-dir", str(tmp_path / "ckpt"))
    common = ("--arch", arch, "--num-workers", "1", *kept)
    first = in_session(*common, "-p", "max_steps=50", LINEAR)
    assert first.code == ExitCode.OK
    assert first.record["result"]["step"] == 50
    stopped_at = first.record["result"]["step"]
    second = in_session(*common, LINEAR)
    assert second.code == ExitCode.OK
    assert second.record["resumed_from"] == first.record["checkpoint"]
    assert f"resumed from step {stopped_at}" in second.text
    result = second.record["result"]
    assert result["resumed_from"] == stopped_at
    assert result["seen"] == 8000
    assert result["total"] == 2 * 4000 * 3999 // 2


def test_after_a_training_that_was_good_enough_nothing_is_left_and_fresh_starts_over(
    in_session, tmp_path
):
    common = ["--name", "linear", "--checkpoint-dir", str(tmp_path / "ckpt")]
    first = in_session(*common, "-p", "good=100", "-p", "epochs=5", LINEAR)
    assert first.code == ExitCode.OK
    assert first.record["result"]["stopped_early"]
    assert first.record["result"]["step"] == 80
    assert "nothing is left" not in first.text
    second = in_session(*common, "-p", "epochs=1", LINEAR)
    assert second.code == ExitCode.OK
    assert "nothing is left to train after step 80, from which this run" in second.text
    assert "could not be found in the restored object" not in second.text
    third = in_session(*common, "--fresh", "-p", "max_steps=5", LINEAR)
    assert third.code == ExitCode.OK
    assert third.record["resumed_from"] is None
    assert third.record["result"]["resumed_from"] == 0


# -- the end -----------------------------------------------------------------------------------


@pytest.fixture
def training(submit, tmp_path):
    """Start a training that has no end; the call returns once it takes steps."""
    stepped, settings = tmp_path / "stepped", tmp_path / "patient.yaml"
    settings.write_text("supervision: {grace_s: 30}\n")
    kept = ("--conf", str(settings), "--checkpoint-dir", str(tmp_path / "ckpt"))
    endless = ("-p", "slow=0.05", "-p", "epochs=1000", "-p", f"stepped={stepped}")

    def start(*roles: str, app: str = LINEAR) -> subprocess.Popen[str]:
        process = submit.start(*roles, *kept, *endless, app)
        wait_for(stepped.exists, 150.0)
        assert process.poll() is None
        return process

    return start


# SIGTERM ends a run in test_e2e_bad_input.py.
def test_an_interrupt_ends_everything_after_a_last_checkpoint(submit, training, tmp_path):
    process = training("--arch", "ps", "--num-workers", "1")
    os.kill(process.pid, signal.SIGINT)
    run = submit.finish(process)
    print(run.err[-4000:])
    assert run.code == ExitCode.INTERRUPTED
    assert run.record["outcome"] == "interrupted"
    # The chief kept what it had, on servers that were still there, and nobody died of the end.
    step, checkpoint = run.record["steps"], run.record["checkpoint"]
    assert checkpoint == str(tmp_path / "ckpt" / "LinearJob" / f"ckpt-{step:012}-g1")
    assert run.record["error"] == (
        f"interrupted by SIGINT at step {step:,}; checkpoint {checkpoint}: the same command resumes"
    )
    assert run.record["failures"] == []
    assert "first failure" not in run.text
    assert "grpc" not in run.text.lower()


def test_a_killed_client_leaves_nothing(submit, training):
    process = training("--arch", "plain", app=PLAIN)
    os.kill(process.pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    submit.run_ids.update(re.findall(r"tfos: run (\S+) of ", out))
    wait_for(lambda: not submit.processes(), poll_s=0.2)
