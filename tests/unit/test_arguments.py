"""Arguments of public methods: what is taken, and the one line about what is not."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from tfos import wire
from tfos.arguments import numbers_by_name
from tfos.base import TrainContext
from tfos.read_plan import FeedPosition, ReadPlan
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey
from tfos.training_parts import FitPlan, ProcessFacts

CHIEF = TaskKey(Role.CHIEF, 0)


class Asked:
    """A feed, a link and a runtime that keep what they are asked for."""

    def __init__(self) -> None:
        self.plans: list[ReadPlan | FitPlan] = []
        self.reported: list[tuple[int, int, dict[str, float]]] = []

    def dataset(self, plan, mapped=None):
        self.plans.append(plan)

    batches = dataset

    def steps_per_epoch(self, feed, name, batch_size):
        return -(-100 // batch_size)

    def fit(self, plan, ctx):
        self.plans.append(plan)

    def report(self, step, rows, metrics):
        self.reported.append((step, rows, metrics))


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def ctx(asked):
    cluster = ClusterSpec({CHIEF: Endpoint("127.0.0.1", 1)})
    return TrainContext(
        ProcessFacts("job", "run", 1, CHIEF, cluster, (CHIEF,), (0,)),
        feed=asked,
        checkpoints=SimpleNamespace(),
        link=asked,
        runtime=asked,
        export_to=lambda write, step: None,
    )


def fit(ctx, **given):
    return ctx.fit(**{"step": lambda batch: {}, "state": {"v": 1}, **given})


@pytest.mark.parametrize(
    ("given", "error", "line"),
    [
        (
            {"batch_size": "64"},
            TypeError,
            "batch_size must be an integer of 1 or more, not '64' (str)",
        ),
        (
            {"batch_size": 64.5},
            TypeError,
            "batch_size must be an integer of 1 or more, not 64.5 (float)",
        ),
        ({"batch_size": True}, TypeError, "batch_size must be an integer of 1 or more, not True"),
        ({"batch_size": None}, TypeError, "batch_size must be an integer of 1 or more, not None"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of 1 or more, not 0 (int)"),
        (
            {"batch_size": -(10**400)},
            ValueError,
            "batch_size must be an integer of 1 or more, not -1000",
        ),
        (
            {"epochs": 0},
            ValueError,
            "epochs must be an integer of 1 or more, not 0 (int); None means no end",
        ),
        ({"shuffle_rows": -1}, ValueError, "shuffle_rows must be an integer of 0 or more, not -1"),
        ({"seed": 2**63}, ValueError, "seed must be an integer between 0 and 9223372036854775807"),
        ({"columns": "ab"}, TypeError, "columns must be a list of column names"),
        ({"columns": [1]}, TypeError, "columns must be a list of column names"),
        ({"stack": ["a"]}, TypeError, "stack must be a mapping of a new name to columns"),
        ({"stack": {"x": "ab"}}, TypeError, "stack['x'] must be a list of column names"),
        (
            {"drop_remainder": "no"},
            TypeError,
            "drop_remainder must be True or False, not 'no' (str)",
        ),
    ],
)
@pytest.mark.parametrize("method", ["fit", "dataset", "batches", "ReadPlan"])
def test_a_wrong_reading_is_named(ctx, method, given, error, line):
    calls = {
        "fit": lambda: fit(ctx, **given),
        "dataset": lambda: ctx.dataset(**given),
        "batches": lambda: ctx.batches(**given),
        "ReadPlan": lambda: ReadPlan(**given),
    }
    with pytest.raises(error) as told:
        calls[method]()
    subject = method if method == "ReadPlan" else f"ctx.{method}"
    assert str(told.value).startswith(f"{subject}: {line}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "error", "line"),
    [
        ({"state": [1]}, TypeError, "state must be objects to keep by name"),
        ({"state": {1: 1}}, TypeError, "state must be objects to keep by name"),
        ({"step": None}, TypeError, "step must be a function of a batch, not None"),
        ({"data": 3}, TypeError, "data must be a str, not 3 (int)"),
        ({"data": ""}, ValueError, "data must be a name, not '' (str)"),
        ({"evaluate": {"rmse": 1}}, TypeError, "evaluate must be a function that returns metrics"),
        ({"evaluate_every_epochs": 0}, ValueError, "evaluate_every_epochs must be an integer of 1"),
        ({"max_steps": 1e6}, TypeError, "max_steps must be an integer of 1 or more, not 1000000.0"),
        ({"map": "x"}, TypeError, "map must be a function of a batch, or None, not 'x' (str)"),
        ({"stop_when": 0.9}, TypeError, "stop_when must be a function of the metrics"),
        (
            {"on_nan": "raise"},
            ValueError,
            "on_nan must be 'stop' or 'warn' or 'ignore', not 'raise'",
        ),
        ({"on_nan": []}, TypeError, "on_nan must be 'stop' or 'warn' or 'ignore', not []"),
    ],
)
def test_a_wrong_argument_of_fit_is_named(ctx, given, error, line):
    with pytest.raises(error) as told:
        fit(ctx, **given)
    assert str(told.value).startswith(f"ctx.fit: {line}")


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda ctx: ctx.dataset(7), TypeError, "ctx.dataset: name must be a str, not 7 (int)"),
        (lambda ctx: ctx.dataset(start=5), TypeError, "ctx.dataset: start must be a FeedPosition"),
        (
            lambda ctx: ctx.batches(start=(0, -1)),
            ValueError,
            "ctx.batches: start.row must be an integer of 0 or more, not -1 (int)",
        ),
        (
            lambda ctx: ctx.steps_per_epoch("9"),
            TypeError,
            "ctx.steps_per_epoch: batch_size must be",
        ),
        (lambda ctx: ctx.steps_per_epoch(9, None), TypeError, "ctx.steps_per_epoch: name must be"),
        (
            lambda ctx: ctx.report("1"),
            TypeError,
            "ctx.report: step must be an integer of 0 or more",
        ),
        (lambda ctx: ctx.report(1, rows=-1), ValueError, "ctx.report: rows must be an integer"),
        (
            lambda ctx: ctx.report(1, loss="low"),
            TypeError,
            "ctx.report: metrics must be numbers: 'loss' is 'low' (str)",
        ),
        (lambda ctx: ctx.keras_dataset(epochs=3), TypeError, "ctx.keras_dataset has no option"),
        (lambda ctx: ctx.keras_callbacks("warn"), ValueError, "ctx.keras_callbacks: on_nan must"),
        (lambda ctx: ctx.reduce_sum("many"), TypeError, "ctx.reduce_sum: values must be a number"),
        (
            lambda ctx: ctx.fit(lambda batch: {}, state={"v": 1}, batchsize=500),
            TypeError,
            "ctx.fit has no option 'batchsize': did you mean 'batch_size'?",
        ),
        (
            lambda ctx: ctx.dataset(shuffle=500),
            TypeError,
            "ctx.dataset has no option 'shuffle': did you mean 'shuffle_rows'?",
        ),
        (
            lambda ctx: ctx.batches(zzz=500),
            TypeError,
            "ctx.batches has no option 'zzz': it takes name, batch_size, epochs",
        ),
    ],
)
def test_a_wrong_call_is_named(ctx, call, error, line):
    with pytest.raises(error) as told:
        call(ctx)
    assert str(told.value).startswith(line)


def test_numpy_numbers_and_lists_are_taken(ctx, asked):
    given = {
        "batch_size": np.int64(64),
        "epochs": np.int32(2),
        "columns": ["a"],
        "seed": np.uint8(3),
    }
    fit(ctx, stack={"x": ["b", "c"]}, drop_remainder=np.bool_(True), **given)
    ctx.dataset(**given, start=[np.int64(1), 5])
    ctx.report(np.int32(5), loss=np.float32(0.5))
    (fitted, read) = asked.plans
    assert isinstance(fitted.read, ReadPlan)
    assert fitted.read == ReadPlan(
        batch_size=64,
        epochs=2,
        columns=("a",),
        seed=3,
        stack={"x": ("b", "c")},
        drop_remainder=True,
    )
    assert type(fitted.read.batch_size) is int
    assert read.start == FeedPosition(1, 5)
    assert wire.from_json(ReadPlan, wire.to_json(read)) == read
    assert asked.reported == [(5, 0, {"loss": 0.5})]
    assert ctx.steps_per_epoch(np.int64(30)) == 4


def test_metrics_of_any_name_are_reported(ctx, asked):
    ctx.report(5, {"rows": 7, "step": 8, "val/auc": 0.5}, rows=3, self_loss=1)
    assert asked.reported == [(5, 3, {"rows": 7.0, "step": 8.0, "val/auc": 0.5, "self_loss": 1.0})]


def test_editors_see_the_options():
    reading = {each for each in ReadPlan.__dataclass_fields__ if each not in ("name", "start")}
    for method in (TrainContext.fit, TrainContext.dataset, TrainContext.batches):
        parameters = inspect.signature(method).parameters
        assert reading <= parameters.keys()
        for name in reading - {"stack"}:
            assert parameters[name].default == ReadPlan.__dataclass_fields__[name].default


def test_numbers_of_metrics():
    found = {"a": np.float32(0.5), "b": np.array([2]), "c": True, "d": 3}
    assert numbers_by_name("it returned", found) == {"a": 0.5, "b": 2.0, "c": 1.0, "d": 3.0}
    for wrong in (None, 3, [1.0], {"a": None}, {"a": "1"}, {"a": [1, 2]}, {"a": 1j}, {2: 1.0}):
        with pytest.raises(TypeError, match=r"^it returned"):
            numbers_by_name("it returned", wrong)
