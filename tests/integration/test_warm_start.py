"""Resume and warm start of real models, in one process and on parameter servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["local", "ps"])
def fits(request, tmp_path_factory) -> dict[str, Any]:
    """What became of each fit of the program, by its name; its output under an empty one."""
    directory = tmp_path_factory.mktemp(request.param)
    tests = str(Path(__file__).parents[1])
    argv = [sys.executable, "-m", "support.warm_start_program", request.param, str(directory)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, env=env, check=False)
    print(done.stdout, done.stderr[-5000:], sep="\n")
    assert done.returncode == 0
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    parts = {fit["parts"] for fit in told if "parts" in fit and " local " not in fit["fit"]}
    assert parts == {1 if request.param == "local" else 2}
    return {"": done.stderr, **{fit["fit"]: fit for fit in told}}


def test_a_complete_training_is_silent_but_for_one_line(fits):
    fit = fits["complete"]
    assert (fit["step"], fit["resumed_from"]) == (2, 2)
    assert fit["table"] == fits["first"]["table"]
    assert fit["notices"][1:] == [
        "nothing is left to train after step 2, from which this run resumed: it was evaluated "
        "again; to train on other data use another --name, or --fresh"
    ]
    assert "could not be found in the restored object" not in fits[""]


@pytest.mark.parametrize(
    ("fit", "told"),
    [
        ("larger", "table is [50000, 4] float32 there and [60000, 4] float32 here; use another"),
        (
            "renamed",
            "the job has embedding [50000, 4], which the checkpoint lacks; the checkpoint has "
            "table [50000, 4], which the job lacks; use another",
        ),
        ("one more", "the job has bias [], which the checkpoint lacks; use another"),
    ],
)
def test_a_resume_that_cannot_be_names_what_differs_and_the_ways_on(fits, fit, told):
    error = fits[fit]["error"]
    assert error.startswith("ConfigError: cannot resume from ckpt-000000000002-g1: ")
    assert told in error
    assert "--warm-start" in error
    assert "--fresh" in error


@pytest.mark.parametrize(("fit", "first"), [("grown", "first"), ("grown new", "first new")])
def test_tables_grow_with_what_the_optimizer_keeps_for_them(fits, fit, first):
    if fit not in fits:
        pytest.skip("of the newer optimizers in one process alone")
    old, new = fits[first], fits[fit]
    # Rows that were not trained tonight are last night's, and the new ones as they were made.
    assert new["table"][1:] == [*old["table"][1:3], 7.0]
    assert new["slots"][1:] == [*old["slots"][1:3], 0.25]
    # A row that was went on from last night's value and accumulator.
    assert new["table"][0] == pytest.approx(0.9994, abs=1e-3)
    assert new["slots"][0] >= old["slots"][0]
    (told,) = new["notices"]
    assert "2 grown: table [50000, 4] -> [60000, 4], " in told
    assert "1 new: bias []" in told
    assert "dropped" not in told


def test_a_renamed_variable_is_found_by_its_own_name(fits):
    fit = fits["renamed warm"]
    if fit["parts"] > 1:
        # Of a sharded variable a checkpoint has no name.
        assert fit["table"][1:3] == [7.0, 7.0]
        assert "2 new: embedding [50000, 4], " in fit["notices"][0]
        return
    assert fit["table"][1:3] == [0.5, 0.5]
    assert "new" not in fit["notices"][0]


@pytest.mark.parametrize("optimizer", ["legacy", "new"])
@pytest.mark.parametrize("saved", ["less", "compiled", "from local", "to local"])
def test_a_resume_goes_on_with_what_the_optimizer_kept(fits, optimizer, saved):
    whole, resumed = fits[f"whole {optimizer}"], fits[f"{saved} {optimizer}"]
    assert (resumed["step"], resumed["resumed_from"]) == (2, 1)
    assert resumed["slots"] == whole["slots"]
    assert resumed["table"] == whole["table"]
    lacking = [line for line in resumed["notices"] if "not restored" in line]
    assert len(lacking) == (saved == "less")


@pytest.mark.parametrize("optimizer", ["legacy", "new"])
def test_a_resume_names_saved_variables_that_the_job_lacks(fits, optimizer):
    assert fits[f"less {optimizer}"]["notices"][1:] == [
        "the checkpoint that this run resumed from has bias [], which the job lacks: not restored, "
        "and left out of the next checkpoint"
    ]


def test_slots_that_no_checkpoint_will_hold_are_named(fits):
    told = [line for line in fits["v1"]["notices"] if "no checkpoint will hold" in line]
    assert len(told) == (fits["v1"]["parts"] > 1)
    for line in told:
        assert "table/.OPTIMIZER_SLOT/opt/accumulator [50000, 4]: an optimizer of" in line


def test_the_jobs_own_checkpoint_comes_before_a_warm_start(fits):
    fit = fits["resumed"]
    assert (fit["step"], fit["resumed_from"]) == (2, 1)
    assert fit["table"][1:] == fits["grown"]["table"][1:]
    assert "is left aside: this run resumes from the job's own checkpoint" in fit["notices"][0]


def test_rows_are_not_lost_in_silence(fits):
    assert "would lose rows: table [50000, 4] -> [49999, 4]" in fits["smaller"]["error"]
    assert fits["smaller"]["latest"] is None


def test_a_saved_model_is_begun_from(fits):
    assert fits["model"]["table"][1:] == [0.5, 0.5, 0.5]
    assert "table/.OPTIMIZER_SLOT/opt/accumulator [50000, 4]" in fits["model"]["notices"][0]


def test_a_resume_says_what_has_changed(fits):
    told = next(line for line in fits["resumed"]["notices"] if line.startswith("resumed"))
    assert told.endswith(", saved with max_steps=1; now max_steps=None")
    assert "saved with" not in fits["complete"]["notices"][0]


def test_an_export_that_cannot_be_loaded_is_refused(fits):
    error = fits["export"]["error"]
    assert error.startswith("ConfigError: the exported model cannot be loaded and is not published")
    assert "table is [2, 2] float32 there and [4, 2] float32 here" in error


def test_a_state_is_saved_by_one_function_until_it_has_other_objects(fits):
    saves = ("first", "slots", "again", "more")
    assert [fits[f"save alone {each}"]["traced"] for each in saves] == [True, True, False, True]
    # As TensorFlow saves it at that moment: new values, new objects, and values of Python's.
    for kind in ("alone", "counted"):
        assert [fits[f"save {kind} {each}"]["same"] for each in saves] == [True] * 4
