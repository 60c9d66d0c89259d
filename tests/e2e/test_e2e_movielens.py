"""The MovieLens example, for real: every variant reaches the error its README promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from services import tell_missing

from tfos.errors import ExitCode

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "fm_movielens"
DATA = Path(os.environ.get("TFOS_MOVIELENS", REPOSITORY / ".cache" / "ml-100k"))

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(300)]


@pytest.fixture
def data() -> str:
    if not DATA.is_dir():
        tell_missing(f"MovieLens 100K is not in {DATA}: run `make data`, or set TFOS_MOVIELENS")
    return f"data={DATA}"


def check(run) -> None:
    assert run.code == ExitCode.OK
    # Fold 0 was measured at 0.900 to 0.901 in every variant; biases alone reach 0.944.
    assert 0.85 < run.record["result"]["rmse"] < 0.912
    best = run.record["result"]["best"]
    assert len(set(best)) == 10
    assert run.record["rows"] == {"train": 80_000, "eval": 20_000}


def test_the_common_loop_in_one_process(submit, data, tmp_path):
    models = tmp_path / "models"
    run = submit("-p", data, "--model-dir", str(models), str(EXAMPLE / "fm.py"))
    check(run)
    assert Path(run.record["model"]).parent == models


def test_the_common_loop_on_parameter_servers(submit, data):
    arguments = ["--arch", "ps", "--num-ps", "1", "--num-workers", "2", "-p", data]
    check(submit(*arguments, str(EXAMPLE / "fm.py")))


@pytest.mark.horovod
def test_the_common_loop_on_a_ring_of_separate_executors(submit, data, tmp_path):
    arguments = ["--master", "local-cluster[2,1,1024]", "--arch", "ring", "--num-workers", "2"]
    models = tmp_path / "models"
    run = submit(*arguments, "-p", data, "--model-dir", str(models), str(EXAMPLE / "fm.py"))
    check(run)
    assert Path(run.record["model"]).parent == models
    # The ranks' batches together are a step's, so it takes as many as one process.
    assert run.record["steps"] == 30 * 79


@pytest.mark.horovod
def test_keras_and_horovods_callbacks_on_a_ring(submit, data):
    arguments = ["--arch", "ring", "--num-workers", "2", "-p", data, "-p", "epochs=4"]
    run = submit(*arguments, str(EXAMPLE / "deep_keras.py"))
    assert run.code == ExitCode.OK
    assert run.record["result"]["rmse"] < 0.944
    losses = run.record["result"]["loss"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("api", ["session", "monitored"])
def test_the_session_program(submit, data, api):
    arguments = ["--arch", "session", "--num-workers", "2", "-p", data, "-p", f"api={api}"]
    check(submit(*arguments, str(EXAMPLE / "fm_session.py")))
