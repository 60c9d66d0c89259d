"""The run's record: JSON, atomic, honest about errors."""

import json
import math

import pytest

from tfos import wire
from tfos.errors import ConfigError, RunTimeoutError, WorkerFailedError
from tfos.fault.failures.record import Cause, Failure
from tfos.fault.failures.restart_policy import IncidentRecord, Reaction
from tfos.launcher.handover.result import RunResult, outcome_of

DEATH = Failure("worker-0", Cause.PROCESS_DEATH, "m", 1.0)
FULL = RunResult(
    outcome="failed",
    exit_code=4,
    job="fm",
    run_id="r1",
    error="boom",
    failures=(DEATH,),
    metrics={"loss": 0.5},
    result={"rmse": [1, None]},
    steps=7,
    rows={"train": 10},
    restarts=1,
    incidents=(IncidentRecord(Reaction.RESPAWN, 1, 6, 2.0, (DEATH,), 1.5),),
    report="/ck/reports/r1.json",
    model="/m/1",
)


def test_round_trip_through_a_file(tmp_path):
    file = tmp_path / "new" / "deep" / "r.json"
    FULL.write(file)
    assert RunResult.read(file) == FULL
    assert [p.name for p in file.parent.iterdir()] == ["r.json"]


def test_the_schema_is_what_schedulers_were_told():
    assert list(json.loads(json.dumps(wire.to_json(RunResult("done", 0))))) == [
        "outcome",
        "exit_code",
        "job",
        "run_id",
        "error",
        "failures",
        "metrics",
        "result",
        "steps",
        "rows",
        "restarts",
        "incidents",
        "report",
        "resumed_from",
        "checkpoint",
        "model",
        "phases",
        "started",
        "ended",
    ]


def test_numbers_json_lacks_become_null(tmp_path):
    file = tmp_path / "r.json"
    RunResult("done", 0, metrics={"loss": math.nan}, result=[math.inf]).write(file)
    document = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert document["metrics"] == {"loss": None}
    assert document["result"] == [None]
    assert RunResult.read(file).metrics == {"loss": None}


def test_a_failed_write_leaves_the_old_record_and_no_litter(tmp_path):
    file = tmp_path / "r.json"
    FULL.write(file)
    with pytest.raises(TypeError):
        RunResult("done", 0, result=object()).write(file)
    assert RunResult.read(file) == FULL
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--result-json"):
        FULL.write(tmp_path / "file" / "r.json")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigError, match="--result-json"):
        FULL.write(tmp_path / "directory")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["directory", "file"]


@pytest.mark.parametrize(
    "damage",
    [{"outcome": "great"}, {"extra": 1}],
)
def test_other_documents_are_refused(damage):
    with pytest.raises(ValueError, match="not a run record"):
        RunResult.from_text(json.dumps({**wire.to_json(FULL), **damage}))
    with pytest.raises(ValueError, match=r"missing or unknown in RunResult: .*outcome"):
        RunResult.from_text('{"exit_code": 0}')


def test_errors_become_records():
    record = RunResult.from_error(RunTimeoutError("too\nlong", timeout_s=3.0), job="fm")
    assert (record.outcome, record.exit_code, record.error) == ("timed_out", 6, "too long")
    failed = RunResult.from_error(WorkerFailedError("w", failures=[DEATH]))
    assert failed.failures == (DEATH,)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0, "done"),
        (6, "timed_out"),
        (7, "already_running"),
        (130, "interrupted"),
        (4, "failed"),
        (99, "failed"),
    ],
)
def test_outcomes(code, outcome):
    assert outcome_of(code) == outcome


def test_the_representation_is_what_tells_a_run_from_others():
    result = RunResult("done", 0, job="fm", steps=160, phases={"started": 1.0})
    assert repr(result) == "RunResult(outcome='done', job='fm', steps=160)"
    assert result.step == 160
