"""The codec: what each type looks like as JSON, and how strictly it is read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfos.config import JobConfig
from tfos.fault.failures.record import Cause, Failure, Outcome
from tfos.fault.failures.restart_policy import Incident, Reaction
from tfos.launcher.handover import messages
from tfos.progress import Aim, Notice, Progress, RoleProgress
from tfos.read_plan import FeedPosition, ReadPlan
from tfos.topology import ClusterSpec, Endpoint, Life, Role, TaskKey
from tfos.wire import from_json, from_text, to_json

WORKER = TaskKey(Role.WORKER, 1)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Part:
    size: int
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Other:
    size: int


@dataclass(frozen=True)
class Whole:
    key: TaskKey
    life: Life
    at: FeedPosition
    level: Literal["info", "warning"] = "info"
    share: float = 0.5
    on: bool = True
    parts: tuple[Part, ...] = ()
    names: Sequence[str] = ()
    ends: Mapping[TaskKey, Endpoint] = field(default_factory=dict)
    ages: Mapping[int, float] = field(default_factory=dict)
    either: Part | Other | None = None
    anything: Any = None


WHOLE = Whole(
    key=WORKER,
    life=Life(WORKER, 2, 0),
    at=FeedPosition(1, 7),
    parts=(Part(3), Part(4, Colour.BLUE)),
    names=("a",),
    ends={WORKER: Endpoint("node7", 80)},
    ages={0: 1.5},
    either=Other(9),
    anything={"x": [1, None, "y"]},
)
DOCUMENT = {
    "key": "worker-1",
    "life": "worker-1.g2.r0",
    "at": [1, 7],
    "level": "info",
    "share": 0.5,
    "on": True,
    "parts": [{"size": 3, "colour": "red"}, {"size": 4, "colour": "blue"}],
    "names": ["a"],
    "ends": {"worker-1": "node7:80"},
    "ages": {"0": 1.5},
    "either": {"type": "Other", "size": 9},
    "anything": {"x": [1, None, "y"]},
}


def test_the_table_of_types():
    assert to_json(WHOLE) == DOCUMENT
    assert from_json(Whole, json.loads(json.dumps(DOCUMENT))) == WHOLE


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("key", "boss-1", "key: 'boss' is not a valid Role"),
        ("key", 5, "key: expected text, found 5"),
        ("life", "worker-1", "life: not a life: 'worker-1'"),
        ("at", [1], r"at: expected an array of 2, found \[1\]"),
        ("at", [1, "7"], r"at\[1\]: expected a whole number, found '7'"),
        ("level", "loud", "level: expected one of 'info', 'warning', found 'loud'"),
        ("share", "0.5", "share: expected a number, found '0.5'"),
        ("share", True, "share: expected a number, found True"),
        ("on", 1, "on: expected true or false, found 1"),
        ("parts", {}, r"parts: expected an array, found \{\}"),
        ("parts", [{"size": True}], r"parts\[0\]: missing or unknown in Part: colour"),
        (
            "parts",
            [{"size": 1.5, "colour": "red"}],
            r"parts\[0\]\.size: expected a whole number, found 1\.5",
        ),
        (
            "parts",
            [{"size": 1, "colour": "green"}],
            r"parts\[0\]\.colour: expected one of 'red', 'blue', found 'green'",
        ),
        ("names", "abc", "names: expected an array, found 'abc'"),
        ("names", ["a", None], r"names\[1\]: expected text, found None"),
        ("ends", {"worker-1": "node7"}, r"ends\['worker-1'\]: not an endpoint: 'node7'"),
        ("ends", {"w": "node7:80"}, r"ends\['w'\]: not a task key: 'w'"),
        ("ages", {"one": 1.5}, r"ages\['one'\]: .*'one'"),
        ("either", {"type": "Third", "size": 1}, "either: expected an object whose type is one of"),
        ("either", {"size": 1}, "either: expected an object whose type is one of Part, Other"),
        ("either", {"type": "Other", "size": 1, "x": 1}, "either: missing or unknown in Other: x"),
    ],
)
def test_anything_else_is_refused_and_its_place_is_named(place, value, told):
    with pytest.raises(ValueError, match=f"^{told}"):
        from_json(Whole, {**DOCUMENT, place: value})


def test_missing_and_unknown_fields_are_refused():
    with pytest.raises(ValueError, match=r"^missing or unknown in Whole: extra, on$"):
        from_json(Whole, {k: v for k, v in {**DOCUMENT, "extra": 1}.items() if k != "on"})
    with pytest.raises(ValueError, match=r"^expected an object \(Whole\), found \['key'\]$"):
        from_json(Whole, ["key"])


@pytest.mark.parametrize("text", ["[1]", "5", "null", '"x"'])
def test_a_document_of_any_fields_is_an_object_still(text):
    assert from_text(dict, '{"a": [1, null]}') == {"a": [1, None]}
    with pytest.raises(ValueError, match=r"^expected an object, found "):
        from_text(dict, text)


def test_a_long_value_is_shown_in_part():
    with pytest.raises(ValueError, match=r"found 'xxx+\.\.\.$") as caught:
        from_json(Part, {"size": "x" * 10_000, "colour": "red"})
    assert len(str(caught.value)) < 200


def test_a_class_that_checks_its_own_fields_is_heard():
    with pytest.raises(ValueError, match="batch_size"):
        from_json(ReadPlan, {**to_json(ReadPlan()), "batch_size": 0})


def test_a_type_without_a_form_is_the_programs_error():
    with pytest.raises(TypeError, match="no form in JSON"):
        to_json(object())


DEATH = Failure("ps-0", Cause.PROCESS_DEATH, "died", 1.0, last_lines=("a", "b"), stacks="s")


@pytest.mark.parametrize(
    "value",
    [
        ReadPlan(columns=("a",), stack={"x": ("b", "c")}, start=FeedPosition(1, 2)),
        ClusterSpec({WORKER: Endpoint("h", 5)}),
        DEATH,
        Outcome(WORKER, DEATH, result=[1], notices=(Notice("n", "warning", 2.0),)),
        Incident(DEATH, Reaction.RESPAWN, 1, 2, 3.0, (DEATH,)),
        RoleProgress(Progress(3, 4, {"loss": 0.5}), read=FeedPosition(0, 9), aim=Aim(2, None)),
        JobConfig(params={"a": "b"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_documents_of_a_run_survive(value):
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize(
    "message",
    [
        messages.Phase("begun", 1.0),
        messages.Beat(None, False),
        messages.Beat(FeedPosition(1, 2), True),
        Progress(5, 640, {"loss": 0.5}),
        Aim(None, 7),
        Notice("n", "info", 1.0),
        messages.Saving(True),
        messages.Artifact("model", "/m"),
        messages.PositionsWanted(3),
        messages.Ended({"rmse": 1.0}),
        messages.Ended(None, DEATH),
    ],
    ids=repr,
)
def test_a_message_of_the_process_is_read_by_its_host_alone(message):
    carried = json.loads(json.dumps(messages.to_json(message)))
    assert messages.from_process(carried) == message
    with pytest.raises(ValueError, match="expected an object whose type is one of Begin, Running"):
        messages.from_host(carried)


@pytest.mark.parametrize(
    "message",
    [
        messages.Begin("/spec", (WORKER,)),
        messages.Running(()),
        messages.Positions(3, {0: FeedPosition(1, 2)}),
        messages.Stop(),
        messages.Exit(9),
    ],
    ids=repr,
)
def test_a_message_of_the_host_is_read_by_its_process_alone(message):
    carried = json.loads(json.dumps(messages.to_json(message)))
    assert messages.from_host(carried) == message
    with pytest.raises(ValueError, match="expected an object whose type is one of Phase, Beat"):
        messages.from_process(carried)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
def test_no_json_breaks_the_reader(value):
    for read in (messages.from_process, messages.from_host, lambda data: from_json(Whole, data)):
        with pytest.raises(ValueError, match=r"expected|missing or unknown"):
            read(value)


def test_numbers_that_json_lacks_pass_between_our_own():
    (loss,) = from_json(Progress, to_json(Progress(metrics={"loss": math.nan}))).metrics.values()
    assert math.isnan(loss)
