"""The MovieLens example on a real YARN: data, checkpoints and model in HDFS."""

from __future__ import annotations

import pytest
from support.movielens import EXAMPLE, check_quality, find_data
from support.yarn_runs import CLUSTER, PS_SIZES

from tfos.errors import ExitCode
from tfos.testing import DrillRun

pytestmark = pytest.mark.timeout(400)

RING = ("--arch", "ring", "--num-workers", "2", "--worker-memory", "2g", "--worker-cores", "1")
PS = ("--arch", "ps", "--num-ps", "1", "--num-workers", "2", *PS_SIZES)
LOCAL = ("--chief-memory", "2g")


@pytest.fixture
def lake(submit) -> str:
    """The data's URL in HDFS."""
    if not submit.hdfs.exists("/lake/ml-100k"):
        submit.hdfs.makedirs("/lake", exist_ok=True)
        submit.hdfs.put(str(find_data()), "/lake/ml-100k", recursive=True)
    return f"{submit.yarn.record.hdfs}/lake/ml-100k"


def train(submit, lake: str, name: str, *options: str) -> DrillRun:
    kept = f"{submit.yarn.record.hdfs}/kept"
    run = submit(
        *options,
        *("--name", name, "-p", f"data={lake}"),
        *("--checkpoint-dir", f"{kept}/checkpoints", "--model-dir", f"{kept}/models"),
        str(EXAMPLE / "fm.py"),
    )
    assert run.code == ExitCode.OK
    print(f"{name}: RMSE {run.record['result']['rmse']:.4f} in {run.seconds:.0f} s")
    assert run.record["checkpoint"].startswith(f"{kept}/checkpoints/{name}/")
    assert run.record["model"].startswith(f"{kept}/models")
    submit.hdfs.invalidate_cache()
    model = run.record["model"].removeprefix(submit.yarn.record.hdfs)
    names = {path.removeprefix(f"{model}/") for path in submit.hdfs.find(model)}
    assert {"saved_model.pb", "variables/variables.index"} <= names
    return run


@pytest.mark.horovod
def test_a_ring_with_its_driver_in_the_cluster(submit, lake):
    run = train(submit, lake, "fm-ring-short", *RING, *CLUSTER, "-p", "epochs=5")
    assert run.record["rows"] == {"train": 80_000, "eval": 20_000}
    # On its way: biases alone reach 0.944.
    assert run.record["result"]["rmse"] < 0.96


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fm-ring-client", RING),
        ("fm-ring-cluster", (*RING, *CLUSTER)),
        ("fm-ps-client", PS),
        ("fm-ps-cluster", (*PS, *CLUSTER)),
        ("fm-local-cluster", (*LOCAL, *CLUSTER)),
    ],
)
def test_every_architecture_in_both_modes(submit, lake, name, options):
    check_quality(train(submit, lake, name, *options))
