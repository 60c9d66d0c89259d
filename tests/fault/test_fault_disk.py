"""A disk that is full for a while, or for good: a real one, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drills import longest_run_s
from support.small_disk import mounted

from tfos.errors import ExitCode
from tfos.testing import DrillCluster, DrillRun

APP = Path(__file__).parent / "apps" / "counted.py"
ROWS, EPOCHS = 4000, 10

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(300)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MB for the executors: their temporary files and the checkpoints."""
    with mounted(tmp_path / "disk", "size=200m") as directory:
        (directory / "tmp").mkdir()
        yield directory


def train(directory: Path, disk: Path, fault: str, every_s: int, limit_s: float) -> DrillRun:
    (directory / "runs").mkdir()
    configuration = directory / "often.yaml"
    configuration.write_text(
        f"{{checkpoints: {{every_s: {every_s}}}, supervision: {{standby: false}}}}"
    )
    with DrillCluster(directory / "runs", limit_s=limit_s) as cluster:
        run = cluster.submit(
            APP,
            *("--conf", str(configuration), "--checkpoint-dir", str(disk / "checkpoints")),
            *("--spark-conf", f"spark.executorEnv.TMPDIR={disk / 'tmp'}"),
            *("-p", f"rows={ROWS}", "-p", f"epochs={EPOCHS}", "-p", "slow=0.01"),
            inject=[fault],
        )
        print(run.text)
        assert [caused.fault for caused in run.faults] == [fault]
        cluster.assert_nothing_left()
    assert list((disk / "tmp").iterdir()) == []
    return run


def test_training_goes_on_while_the_disk_is_full(
    disk: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # One checkpoint fails, or two; a third would end the process.
    run = train(tmp_path, disk, "fill=4.5:chief-0/host@step=60", 3, longest_run_s(request))
    assert run.code == ExitCode.OK
    assert run.text.count("training goes on without this checkpoint; ") == 1
    assert "checkpoints are written again" in run.text
    assert run.incidents == ()
    result = run.record["result"]
    assert (result["step"], result["fewest"], result["most"]) == (800, EPOCHS, EPOCHS)
    assert (disk / "checkpoints" / "CountedJob" / "ckpt-000000000800-g1").is_dir()


def test_a_disk_that_stays_full_ends_the_run_and_is_named(
    disk: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # By then a checkpoint is complete, whose step is named.
    run = train(tmp_path, disk, "fill=60:chief-0/host@step=300", 1, longest_run_s(request))
    assert run.code == ExitCode.INFRASTRUCTURE
    # Named when it happens, and the end has the same cause: a restart would meet it again.
    place = disk / "checkpoints" / "CountedJob"
    for told in (run.out, run.record["error"]):
        assert f"was not written: no space is left for {place}; free some, or let --ch" in told
        assert "the last complete checkpoint is of step" in told
    assert run.text.count("training goes on without this checkpoint") == 1
    assert run.incidents == ()
