"""Every fault of a training process, at every point: driver and hosts answer as they are to.

The cells are those of the fault matrix, which causes the same faults with Spark, ZooKeeper and
TensorFlow.
"""

from dataclasses import replace

import pytest
from support.acting_process import SAVE_EVERY, STEPS
from support.fault_cells import CELLS, GENERATION, PROCESSES, RESPAWN, Cell
from support.scene import Scene, quick

from tfos.errors import ExitCode
from tfos.fault.failures.record import Cause
from tfos.launcher.driver.events import Verdict
from tfos.topology import TaskKey

STEP = SAVE_EVERY + 3
# A network that is cut is no matter of one process alone.
PLAYED = [c for c in CELLS if c.subject.name in PROCESSES and c.action != "cut"]


@pytest.fixture
def play(monkeypatch, tmp_path):
    with quick(monkeypatch, tmp_path):
        yield lambda arch, *faults: Scene(tmp_path, arch, faults)


def test_there_is_a_scene_for_every_fault_of_a_process():
    assert len(PLAYED) == 126


@pytest.mark.parametrize("arch", ["local", "ps", "session", "ring"])
def test_a_run_without_faults_takes_every_step_once(play, arch):
    scene = play(arch)
    assert (scene.state.verdict, scene.incidents) == (Verdict.DONE, [])
    for key in scene.state.trainers:
        assert scene.steps_of(key) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in PLAYED])
def test_fault(cell: Cell, play) -> None:
    cell = replace(cell, subject=replace(cell.subject, step=STEP))
    scene = play(cell.subject.arch, cell.fault)
    failed = [failure.cause for failure in scene.state.failures]
    if cell.code == ExitCode.USER_CODE:
        assert (scene.state.verdict, failed[0]) == (Verdict.FAILED, Cause.USER_CODE)
        return
    assert (scene.state.verdict, failed) == (Verdict.DONE, [])
    reactions = tuple(incident.reaction for incident in scene.incidents)
    assert reactions == cell.reactions
    victim = TaskKey.parse(cell.subject.target)
    for key in scene.state.trainers:
        check_steps(scene.steps_of(key), reactions, itself=key == victim)


def check_steps(steps: list[int], reactions: tuple[str, ...], *, itself: bool) -> None:
    """None is left out; again are taken those alone that no checkpoint had."""
    assert set(steps) == set(range(1, STEPS + 1))
    again = len(steps) - STEPS
    if reactions == GENERATION:
        return
    assert again == 0 or (reactions == RESPAWN and itself and again == 1)
