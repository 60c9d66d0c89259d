"""From a run's last state to its record, its error and its report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfos import wire
from tfos.errors import (
    EmptyDataError,
    ExitCode,
    InterruptedRunError,
    RunTimeoutError,
    WorkerFailedError,
)
from tfos.fault.failures.record import Cause, Failure, Outcome, container_logs
from tfos.launcher.driver.events import Phase, Verdict
from tfos.launcher.driver.halts import interrupted
from tfos.launcher.driver.state import RunState
from tfos.launcher.driver.verdict import error_of, fields_of
from tfos.launcher.handover.failure_report import render_failures
from tfos.topology import Role, TaskKey

CHIEF, WORKER, PS = (TaskKey(role, 0) for role in (Role.CHIEF, Role.WORKER, Role.PS))


def state(verdict, *failures, **outcomes) -> RunState:
    keys = {"chief": CHIEF, "worker": WORKER, "ps": PS}
    return RunState(
        expected=frozenset(keys.values()),
        trainers=frozenset({CHIEF}),
        open_groups=frozenset(),
        phase=Phase.ENDED,
        verdict=verdict,
        outcomes={keys[name]: Outcome(keys[name], **fields) for name, fields in outcomes.items()},
        failures=failures,
    )


def failure(key, time=1.0, cause=Cause.USER_CODE, **more) -> Failure:
    return Failure(key=key, cause=cause, message=f"{key} broke", time=time, **more)


def test_a_finished_run_has_no_error():
    assert error_of(state(Verdict.DONE, worker={"rows": {"train": 5}}), None) is None


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.FAILED])
def test_no_rows_at_all_is_what_a_run_without_data_died_of(verdict):
    worker = {"rows": {"train": 0}, "phases": {"feed_ended": 1.0}}
    found = error_of(state(verdict, failure("chief-0"), worker=worker), None)
    assert isinstance(found, EmptyDataError)
    assert found.exit_code == ExitCode.USER_CODE
    assert "no rows" in str(found)


def test_no_rows_before_the_failure_is_not_an_empty_data_frame():
    found = error_of(state(Verdict.FAILED, failure("x"), worker={"rows": {"train": 0}}), None)
    assert isinstance(found, WorkerFailedError)


def test_one_empty_worker_is_no_error():
    ended = state(Verdict.DONE, worker={"rows": {"train": 0}}, chief={"rows": {"train": 3}})
    assert error_of(ended, None) is None


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.USER_CODE, ExitCode.USER_CODE),
        (Cause.PROCESS_DEATH, ExitCode.INFRASTRUCTURE),
        (Cause.DATA, ExitCode.USER_CODE),
        (Cause.CONFIG, ExitCode.CONFIG),
        (Cause.INFRASTRUCTURE, ExitCode.INFRASTRUCTURE),
        (Cause.TIMEOUT, ExitCode.TIMEOUT),
        (Cause.INTERRUPTED, ExitCode.INTERRUPTED),
    ],
)
def test_the_first_cause_decides_the_exit_code(cause, code):
    ended = state(
        Verdict.FAILED,
        failure("chief-0", 1.0, Cause.PEER_LOST),
        failure("ps-0", 3.0, Cause.INFRASTRUCTURE),
        failure("worker-0", 2.0, cause),
    )
    found = error_of(ended, None)
    assert isinstance(found, WorkerFailedError)
    assert found.exit_code == code
    assert [f.key for f in found.failures] == ["worker-0", "chief-0", "ps-0"]


def test_timeouts_and_interrupts_are_themselves():
    assert isinstance(error_of(state(Verdict.TIMED_OUT, failure("driver")), 5.0), RunTimeoutError)


@pytest.mark.parametrize(
    ("chief", "line"),
    [
        (
            {"step": 1304, "artifacts": {"checkpoint": "/c/1304"}},
            "interrupted by SIGINT at step 1,304; checkpoint /c/1304: the same command resumes",
        ),
        ({"step": 7}, "interrupted by SIGINT at step 7; no checkpoint was kept"),
        ({}, "interrupted by SIGINT before the first step; no checkpoint was kept"),
    ],
)
def test_an_interrupted_run_says_how_far_it_is_and_has_no_failure(chief, line):
    asked = interrupted("SIGINT", "SIGINT received").failure
    ended = state(Verdict.INTERRUPTED, asked, failure("ps-0"), chief={"done": False, **chief})
    error = error_of(ended, None)
    assert isinstance(error, InterruptedRunError)
    assert (str(error), error.signal_name) == (line, "SIGINT")
    assert fields_of(ended, CHIEF)["failures"] == ()


def test_a_run_that_yarn_killed_says_so():
    error = error_of(state(Verdict.INTERRUPTED, failure("driver")), None)
    assert str(error) == "driver broke before the first step; no checkpoint was kept"


def test_the_record_adds_rows_up_and_takes_the_chiefs_word():
    fields = fields_of(
        state(
            Verdict.DONE,
            chief={
                "metrics": {"loss": 0.5},
                "result": {"a": 1},
                "step": 9,
                "rows": {"eval": 2},
                "artifacts": {"model": "/m/9", "checkpoint": "/c/9"},
                "phases": {"imported": 12.0},
            },
            worker={"rows": {"train": 7}, "step": 3},
        ),
        CHIEF,
    )
    assert fields["rows"] == {"eval": 2, "train": 7}
    assert (fields["steps"], fields["result"]) == (9, {"a": 1})
    assert (fields["model"], fields["checkpoint"], fields["resumed_from"]) == ("/m/9", "/c/9", None)
    assert fields["phases"] == {"chief-0.imported": 12.0}


def test_the_report_shows_the_cause_and_what_followed():
    first = failure(
        "worker-1",
        host="node7",
        pid=12,
        step=40,
        signal_name="SIGKILL",
        traceback="Traceback\n  boom",
        last_lines=("one", " boom", "two"),
        hint="give it more memory",
    )
    text = render_failures([first, failure("chief-0")])
    for words in (
        "first failure: worker-1",
        "host node7, pid 12, step 40, signal SIGKILL",
        "  boom",
        "two",
        "hint: give it more memory",
        "chief-0: chief-0 broke",
    ):
        assert words in text
    assert text.count("boom") == 1


def test_the_report_leads_to_the_containers_output():
    container = {"NM_HOST": "node7", "NM_HTTP_PORT": "8042", "USER": "me"}
    container["CONTAINER_ID"] = "container_e9_17_0006_01_000003"
    first = failure("worker-1", logs=container_logs(container))
    assert wire.from_json(Failure, wire.to_json(first)) == first
    assert (
        "http://node7:8042/node/containerlogs/container_e9_17_0006_01_000003/me\n"
        "    after the run: tfos logs application_17_0006"
    ) in render_failures([first])
    del container["NM_HTTP_PORT"]
    assert container_logs(container) == ""
    assert "tfos logs" not in render_failures([failure("chief-0")])


def test_no_failures_no_report():
    assert render_failures([]) == ""


def test_a_report_holds_nothing_that_a_terminal_obeys():
    evil = "\x1b]0;owned\x07\rforged\nfirst failure: driver"
    record = replace(
        failure("chief-0"),
        **dict.fromkeys(("message", "traceback", "stacks", "hint", "host"), evil),
        last_lines=(evil,),
    )
    text = render_failures([record, record])
    assert not set(text) & set(map(chr, range(32))) - {"\n"}
    assert [line for line in text.splitlines() if line.strip() == line != ""] == [
        "first failure: chief-0",
        "what followed:",
    ]
