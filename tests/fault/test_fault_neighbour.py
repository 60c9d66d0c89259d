"""Another user of the host attacks a run all the time; it trains all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import neighbour
from support.drills import longest_run_s

from tfos.errors import ExitCode
from tfos.testing import DrillCluster

TESTS = Path(__file__).parents[1]
APP = TESTS / "e2e" / "apps" / "linear.py"
ROWS, EPOCHS = 20000, 2

pytestmark = [
    pytest.mark.spark,
    pytest.mark.tf,
    pytest.mark.zookeeper,
    pytest.mark.timeout(420),
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the host can reach, as none of pytest's is."""
    with tempfile.TemporaryDirectory(prefix="neighbour-") as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def cluster(place: Path, request: pytest.FixtureRequest) -> Iterator[DrillCluster]:
    with DrillCluster(place, limit_s=longest_run_s(request)) as cluster:
        # As /tmp is.
        (place / "tmp").chmod(0o1777)
        yield cluster
        cluster.assert_nothing_left()


@pytest.mark.parametrize("master", ["local[8]", "local-cluster[4,1,1024]"])
def test_it_trains_every_row_and_nothing_is_read(cluster, place, master):
    before = json.dumps(sorted(neighbour.listening()))
    options = ("--arch", "ps", "--num-workers", "2", "--num-ps", "1")
    process = cluster.start(APP, "--master", master, *options, "-p", f"rows={ROWS}")
    attack = subprocess.Popen(
        [sys.executable, neighbour.__file__, str(process.pid), str(place / "tmp"), before],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        run = cluster.finish(process)
    finally:
        said, _ = attack.communicate("end")
    print(run.text[-6000:], said, sep="\n")
    found = json.loads(said)
    assert found["rounds"] > 3
    assert found["got"] == {}
    assert run.code == ExitCode.OK
    assert run.incidents == ()
    assert run.record["result"]["seen"] == EPOCHS * ROWS
