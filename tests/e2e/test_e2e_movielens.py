"""The MovieLens example, for real: every variant reaches the error its README promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.movielens import EXAMPLE, check_quality, find_data

from tfos.errors import ExitCode

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(300)]


@pytest.fixture
def data() -> str:
    return f"data={find_data()}"


@pytest.mark.faults
def test_the_common_loop_in_one_process(in_session, data, tmp_path):
    models = tmp_path / "models"
    run = in_session("-p", data, "--model-dir", str(models), str(EXAMPLE / "fm.py"))
    check_quality(run)
    assert Path(run.record["model"]).parent == models


def test_the_common_loop_on_parameter_servers(submit, data):
    arguments = ["--arch", "ps", "--num-ps", "1", "--num-workers", "2", "-p", data]
    check_quality(submit(*arguments, str(EXAMPLE / "fm.py")))


@pytest.mark.faults
@pytest.mark.horovod
def test_the_common_loop_on_a_ring_of_separate_executors(submit, data, tmp_path):
    arguments = ["--master", "local-cluster[2,1,1024]", "--arch", "ring", "--num-workers", "2"]
    models = tmp_path / "models"
    run = submit(*arguments, "-p", data, "--model-dir", str(models), str(EXAMPLE / "fm.py"))
    check_quality(run)
    assert Path(run.record["model"]).parent == models
    # The ranks' batches together are a step's, so it takes as many as one process.
    assert run.record["steps"] == 30 * 79


@pytest.mark.horovod
def test_keras_and_horovods_callbacks_on_a_ring(in_session, data):
    arguments = ["--arch", "ring", "--num-workers", "2", "-p", data, "-p", "epochs=4"]
    run = in_session(*arguments, str(EXAMPLE / "deep_keras.py"))
    assert run.code == ExitCode.OK
    assert run.record["result"]["rmse"] < 0.944
    losses = run.record["result"]["loss"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


@pytest.mark.faults
@pytest.mark.parametrize("api", ["session", "monitored"])
def test_the_session_program(in_session, data, api):
    arguments = ["--arch", "session", "--num-workers", "2", "-p", data, "-p", f"api={api}"]
    check_quality(in_session(*arguments, str(EXAMPLE / "fm_session.py")))


def test_the_session_program_for_a_few_epochs(in_session, data):
    arguments = ["--arch", "session", "--num-workers", "2", "-p", data, "-p", "epochs=8"]
    run = in_session(*arguments, "-p", "api=session", str(EXAMPLE / "fm_session.py"))
    assert run.code == ExitCode.OK
    # On its way: biases alone reach 0.944.
    assert run.record["result"]["rmse"] < 0.93
