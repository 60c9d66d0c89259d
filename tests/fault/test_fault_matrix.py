"""Cause every fault at every point, for real: each run ends as its cell says."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drills import longest_run_s
from support.fault_cells import ALL, CELLS, FAST, GENERATION, IN_SESSION, PROCESSES, Cell
from support.fault_table import FaultTable, seconds
from support.in_session import InSession
from support.waiting import meanwhile, wait_for

from tfos.errors import ExitCode
from tfos.testing import DrillCluster, DrillRun

APPS = Path(__file__).parent / "apps"
PLAIN = Path(__file__).parents[1] / "e2e" / "apps" / "plain.py"
EPOCHS, BATCH = 2, 50
DETECTED_WITHIN_S = 15.0
CONFIGURATION = """\
checkpoints: {every_s: 1}
feed: {segment_bytes: 16k}
"""
"""Everything short; segments so small that a feed has many."""
SHORT_PATIENCE = "supervision: {heartbeat_timeout_s: 8}\n"
"""For what is stopped, and there alone: on a busy machine healthy processes pause as well, longest
while TensorFlow's libraries are loaded."""

SHORT_SESSIONS = "registry: {session_timeout_s: 6}\n"
"""For what is seen by a session's end, and there alone: for the same reason."""
LONG_SESSIONS = "registry: {session_timeout_s: 20}\n"

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.zookeeper, pytest.mark.timeout(420)]


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DrillCluster]:
    (tmp_path / "runs").mkdir()
    with DrillCluster(tmp_path / "runs", limit_s=longest_run_s(request)) as cluster:
        yield cluster


def options(cell: Cell, directory: Path) -> list[str]:
    configuration = directory / "fast.yaml"
    patience = SHORT_PATIENCE if cell.action == "stop" else ""
    alone = cell.subject.name in PROCESSES and cell.action != "cut"
    sessions = LONG_SESSIONS if alone else SHORT_SESSIONS
    configuration.write_text(CONFIGURATION + patience + sessions)
    parameters = {"rows": cell.subject.rows, "epochs": EPOCHS, "slow": 0.03}
    return [
        *("--arch", cell.subject.arch, "--num-workers", "2", "--num-ps", "1"),
        *("--conf", str(configuration), "--checkpoint-dir", str(directory / "checkpoints")),
        *(word for name, value in parameters.items() for word in ("-p", f"{name}={value}")),
    ]


def parameters() -> list:
    return [
        pytest.param(cell, id=cell.name, marks=() if cell.name in FAST else pytest.mark.faults)
        for cell in CELLS
    ]


@pytest.mark.parametrize("cell", parameters())
def test_fault(cell: Cell, cluster: DrillCluster, table: FaultTable | None, tmp_path: Path) -> None:
    given = ["--master", cell.subject.master, *options(cell, tmp_path)]
    # A driver that hangs is the client's to end; not before it has come so far.
    limit = ("--timeout", "60") if cell.name == "driver-stop-step" else ()
    run = cluster.submit(APPS / cell.subject.app, *given, *limit, inject=[cell.fault])
    show(run)
    # What a dead driver or server leaves alone ends when its session does.
    cluster.assert_nothing_left(within_s=5.0 if cell.code == ExitCode.OK else 15.0)
    check(cell, run)
    if cell.subject.name == "driver":
        resumed = cluster.submit(APPS / cell.subject.app, *given)
        show(resumed)
        check_resumed(cell, resumed)
        cluster.assert_nothing_left()
    if table is not None:
        table.put(*row(cell, run))


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in IN_SESSION])
def test_fault_in_session(cell: Cell, in_session: InSession, tmp_path: Path) -> None:
    given = ("--inject", cell.fault, *options(cell, tmp_path))
    check(cell, in_session(*given, str(APPS / cell.subject.app)))


def test_sigterm_from_elsewhere_is_a_death(in_session: InSession, tmp_path: Path) -> None:
    """A training process that somebody ends has died, and is not done."""
    checkpoints = tmp_path / "checkpoints"

    def end_one() -> None:
        wait_for(lambda: list(checkpoints.glob("*/ckpt-*/COMMITTED")), 120.0)
        (victim,) = in_session.training()
        victim.send_signal(signal.SIGTERM)

    with meanwhile(end_one):
        run = in_session(
            *("--arch", "plain", "--checkpoint-dir", str(checkpoints)),
            *("-p", "every=20", "-p", "slow=0.02", str(PLAIN)),
        )
    assert run.code == ExitCode.OK
    assert tuple(incident.reaction for incident in run.incidents) == GENERATION
    result = run.record["result"]
    assert result["resumed_from"] >= 20
    # The batch in hand as a checkpoint was written is used again.
    assert (result["step"], result["seen"]) == (160 + 1, 8000 + 50)


def check(cell: Cell, run: DrillRun) -> None:
    """The run ended as it should, and what answered the fault was quick."""
    assert [fault.fault for fault in run.faults] == [cell.fault]
    assert run.code == cell.code
    reactions = tuple(incident.reaction for incident in run.incidents)
    assert reactions == cell.reactions or (cell.may_be_answered and reactions == GENERATION)
    for incident in run.incidents:
        assert incident.detected_s is not None
        assert incident.detected_s < DETECTED_WITHIN_S
    if cell.code == ExitCode.OK:
        check_training(cell, run)
    if cell.subject.name == "zookeeper" and cell.code != ExitCode.OK:
        assert "ZooKeeper" in run.record["error"]


def check_training(cell: Cell, run: DrillRun) -> None:
    """Every row took part as often as is promised, and training got where it was to get."""
    result, subject = run.record["result"], cell.subject
    used = subject.rows * EPOCHS
    steps = used // (BATCH * subject.batches)
    assert math.isfinite(result["loss"])
    assert result["loss"] < 1e-3
    assert run.record["steps"] == result["step"]
    if subject.exact or not run.incidents:
        assert result["step"] == steps
        assert (result["fewest"], result["most"], result["seen"]) == (EPOCHS, EPOCHS, used)
    else:
        assert result["step"] >= steps
        assert result["fewest"] >= EPOCHS
        assert used <= result["seen"] < 2 * used


def check_resumed(cell: Cell, run: DrillRun) -> None:
    assert run.code == ExitCode.OK
    check_training(cell, run)
    had_checkpoint = cell.point in ("step", "checkpoint", "shutdown")
    assert (run.record["resumed_from"] is not None) == had_checkpoint


def row(cell: Cell, run: DrillRun) -> tuple[str, ...]:
    if not run.incidents:
        return cell.name, f"none: ends with {run.code}", "", "", "", f"{run.seconds:.0f} s"
    incident = run.incidents[0]
    replayed = run.record["result"]["seen"] - cell.subject.rows * EPOCHS
    # A generation that was over before the next could begin goes back to nothing.
    if incident.reaction == "new_generation" and incident.recovered_s is not None:
        replayed += (
            max(incident.step - run.record["result"]["resumed_from"], 0)
            * BATCH
            * cell.subject.batches
        )
    return (
        cell.name,
        incident.reaction.replace("_", " "),
        seconds(incident.detected_s),
        seconds(incident.recovered_s),
        str(replayed),
        f"{run.seconds:.0f} s",
    )


def show(run: DrillRun) -> None:
    print(f"exit code {run.code} after {run.seconds:.1f} s", run.record.get("result"))
    print(*run.faults, *run.incidents, sep="\n")
    print(run.out[-6000:], run.err[-12000:], sep="\n--- stderr ---\n")


def test_every_combination_is_a_cell_or_says_why_not():
    assert len({cell.name for cell in ALL}) == len(ALL) == 350
    assert {cell.name for cell in CELLS} >= FAST
    assert len(IN_SESSION) == 1
    assert {cell.left_out for cell in CELLS} == {None}


@pytest.mark.faults
def test_slow_is_not_dead(cluster: DrillCluster, tmp_path: Path) -> None:
    cell = next(cell for cell in CELLS if cell.name == "worker-stop-step")
    run = cluster.submit(
        APPS / "counted.py", *options(cell, tmp_path), inject=["slow=4:worker-0@step=60"]
    )
    show(run)
    assert len(run.faults) == 1
    assert run.code == ExitCode.OK
    assert run.incidents == ()
    check_training(cell, run)
    cluster.assert_nothing_left()
