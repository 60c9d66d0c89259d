"""What `train` returned, as a JSON value."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import uuid
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfos.launcher.handover.json_value import MOST_BYTES, as_json
from tfos.launcher.handover.result import RunResult
from tfos.training_parts import FitResult


@dataclass
class Point:
    x: object
    y: object


Pair = collections.namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = "red"


class Odd:
    def __repr__(self):
        return "<odd\n thing>"


class Tensor:
    """Has what TensorFlow's eager tensors and variables have."""

    def __init__(self, value):
        self.numpy = lambda: value

    def __repr__(self):
        return "tensor"


class Ragged:
    def __repr__(self):
        return "ragged"

    def to_list(self):
        return [[1], [], [2, 3]]

    def numpy(self):
        raise AssertionError("not this one")


class Symbolic:
    def numpy(self):
        raise NotImplementedError("no value yet")

    def __repr__(self):
        return "<symbolic>"


FIT = FitResult(
    step=7, rows=9, metrics={"loss": np.float32(0.5)}, resumed_from=0, stopped_early=False
)
WHEN = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.timezone.utc)
ID = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (3, 3),
        ("text", "text"),
        ({"a": [1, (2.5, None)]}, {"a": [1, [2.5, None]]}),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(1.5), 1.5),
        (np.array([[1, 2], [3, 4]], np.int8), [[1, 2], [3, 4]]),
        (np.array([1, "a", None], object), [1, "a", None]),
        (np.array(["2026-11-30"], "M8[ns]"), ["2026-11-30T00:00:00.000000000"]),
        (np.datetime64("2026-11-30"), "2026-11-30"),
        (np.array([(1, 2.0)], [("i", "i4"), ("f", "f4")]), [[1, 2.0]]),
        (Tensor(np.float32(0.25)), 0.25),
        (Tensor(np.arange(3)), [0, 1, 2]),
        (Ragged(), [[1], [], [2, 3]]),
        (
            FIT,
            {
                "step": 7,
                "rows": 9,
                "metrics": {"loss": 0.5},
                "resumed_from": 0,
                "stopped_early": False,
            },
        ),
        (Point(1, Point(np.int32(2), None)), {"x": 1, "y": {"x": 2, "y": None}}),
        (Pair(1, 2), {"a": 1, "b": 2}),
        (pathlib.Path("/models/1"), "/models/1"),
        (WHEN, "2026-11-30T12:00:00+00:00"),
        (WHEN.date(), "2026-11-30"),
        (datetime.timedelta(minutes=1.5), 90.0),
        (Colour.RED, "red"),
        (ID, str(ID)),
        ({3, 1, 2}, [1, 2, 3]),
        (
            {1: "a", np.int64(2): "b", Colour.RED: "c", (1, 2): "d"},
            {"1": "a", "2": "b", "red": "c", "(1, 2)": "d"},
        ),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (fractions.Fraction(1, 2), 0.5),
    ],
    ids=repr,
)
def test_a_value_and_its_json(value, plain):
    converted = as_json(value)
    assert converted.value == plain
    assert type(converted.value) is type(plain)
    assert converted.changed == ()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, np.float32("nan"), {"loss": [np.inf]}], ids=repr
)
def test_numbers_that_json_lacks_are_null_in_the_record(value):
    converted = as_json(value)
    assert converted.changed == ()
    text = RunResult("done", 0, result=converted.value, metrics={"loss": math.nan}).to_text()

    def refuse(constant):
        raise ValueError(constant)

    record = json.loads(text, parse_constant=refuse)
    assert record["metrics"] == {"loss": None}
    assert record["result"] in (None, {"loss": [None]})


@pytest.mark.parametrize(
    ("value", "plain", "changed"),
    [
        (Odd(), "<odd thing>", ["result is of type Odd: its repr is kept"]),
        (
            {"a": [1, Odd()]},
            {"a": [1, "<odd thing>"]},
            ["result['a'][1] is of type Odd: its repr is kept"],
        ),
        (b"bytes", "b'bytes'", ["result is of type bytes: its repr is kept"]),
        (1 + 2j, "(1+2j)", ["result is of type complex: its repr is kept"]),
        (int, "<class 'int'>", ["result is of type type: its repr is kept"]),
        (decimal.Decimal("1.5"), "Decimal('1.5')", ["result is of type Decimal: its repr is kept"]),
        (
            Symbolic(),
            "<symbolic>",
            [
                "result: NotImplementedError while it was read",
                "result is of type Symbolic: its repr is kept",
            ],
        ),
    ],
    ids=repr,
)
def test_what_is_no_json_value_is_kept_as_its_repr_and_said(value, plain, changed):
    converted = as_json(value)
    assert (converted.value, list(converted.changed)) == (plain, changed)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.zeros(1_000_000), "<left out: 1,000,000 items>"),
        (Tensor(np.zeros(1_000_000)), "<left out: 1,000,000 items>"),
        ([0] * 60_000, "<left out: 60,000 items>"),
        ("x" * 200_000, "<left out: 200,002 bytes of JSON>"),
        ([[0] * 100] * 1_000, "<left out: more than 50,000 items>"),
        (
            {"loss": 0.5, "weights": np.zeros(40_000), "all": np.zeros(1_000_000)},
            {
                "loss": 0.5,
                "weights": "<left out: 200,000 bytes of JSON>",
                "all": "<left out: 1,000,000 items>",
            },
        ),
        ({f"key {i:03}": "x" * 486 for i in range(300)}, "<left out: 150,300 bytes of JSON>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_too_large_is_left_out_and_said(value, kept):
    converted = as_json(value)
    assert converted.value == kept
    assert all("is left out: " in line for line in converted.changed)
    assert converted.changed


def test_what_holds_itself_ends():
    loop: list[object] = []
    loop += [loop, loop]
    assert len(json.dumps(as_json(loop).value)) <= MOST_BYTES
    once: dict[str, object] = {}
    once["again"] = once
    assert json.dumps(as_json(once).value).endswith("}")


@pytest.mark.parametrize(
    "method", ["__repr__", "__len__", "__iter__", "__getattr__", "__getitem__", "__float__"]
)
def test_no_method_of_the_users_can_fail_a_training(method):
    def refuse(self, *given):
        raise ZeroDivisionError

    for base in (object, dict, list, float, Exception):
        value = type("Hostile", (base,), {method: refuse})()
        assert json.dumps(as_json({"a": value}).value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.recursive(
        LEAVES,
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
        max_leaves=30,
    )
)
def test_what_is_json_already_stays_as_it_is(value):
    converted = as_json(value)
    assert json.dumps(converted.value) == json.dumps(value)
    assert converted.changed == ()
