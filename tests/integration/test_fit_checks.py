"""What `ctx.fit` refuses and notices, under `local` and `ps`: nothing trains wrong in silence."""

from __future__ import annotations

import contextlib
import logging
import os

import numpy as np
import pyarrow as pa
import pytest
from support.training_process import (
    CHIEF,
    WORKER,
    context,
    facts_of,
    served_roles,
    spool,
    training_feed,
)

from tfos.arrow_feed.schema import FeedSchema
from tfos.errors import ConfigError, DivergedError, NotFedError
from tfos.frameworks.tensorflow.local import LocalFramework
from tfos.launcher.training.feed import TrainingFeed
from tfos.testing.ports import free_ports
from tfos.topology import Endpoint, Role, TaskKey

# As training processes have it.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("default")]

ROWS = 640
X = np.random.default_rng(0).normal(size=ROWS).astype(np.float32)
TRAIN = pa.table({"x": X, "y": 3 * X + 1, "key": [f"k{i % 5}" for i in range(ROWS)]})


@pytest.fixture(scope="module")
def spooled(tmp_path_factory):
    return spool(tmp_path_factory.mktemp("feed") / "train", "train", TRAIN)


@pytest.fixture(scope="module")
def feed(spooled):
    with training_feed(spooled, "train", TRAIN) as feed:
        yield feed


@pytest.fixture(scope="module")
def parameter_served(spooled):
    """A runtime of `ps`, and what its chief knows."""
    from tfos.frameworks.tensorflow.ps import ParameterServerFramework

    keys = [CHIEF, WORKER, TaskKey(Role.PS, 0), TaskKey(Role.PS, 1)]
    cluster = {
        key: Endpoint("127.0.0.1", port)
        for key, port in zip(keys, free_ports(len(keys)), strict=True)
    }
    facts = facts_of(cluster)
    with (
        served_roles(facts, keys[1:], spooled),
        ParameterServerFramework().runtime(facts, None) as runtime,
    ):
        yield runtime, facts


@pytest.fixture(params=["local", "ps"])
def make_context(request, feed):
    """Return a function that makes a context of either architecture."""
    if request.param == "ps":
        runtime, facts = request.getfixturevalue("parameter_served")
    else:
        facts = facts_of({CHIEF: Endpoint("127.0.0.1", 1)})
        with LocalFramework().runtime(facts, None) as runtime:
            pass
    return lambda store=None: context(feed, runtime, facts=facts, store=store)


@pytest.fixture
def ctx(make_context):
    return make_context()


class Line:
    """A line to fit, and an optimizer for it."""

    def __init__(self, ctx, rate=0.05):
        with ctx.scope():
            self.weight = tf.Variable(0.0, name="weight")
            self.bias = tf.Variable(0.0, name="bias")
            self.optimizer = tf_keras.optimizers.Adam(rate)
        self.state = {"weight": self.weight, "bias": self.bias, "optimizer": self.optimizer}

    def loss(self, batch):
        return tf.reduce_mean(tf.square(self.weight * batch["x"] + self.bias - batch["y"]))

    def step(self, batch):
        with tf.GradientTape() as tape:
            loss = self.loss(batch)
        variables = [self.weight, self.bias]
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


# -- a step that trains nothing ----------------------------------------------------------------


def test_a_step_that_changes_none_of_the_variables_is_refused(ctx):
    line = Line(ctx)
    with pytest.raises(ValueError, match=r"changes no variable in state \((weight|bias), "):
        ctx.fit(lambda batch: {"loss": line.loss(batch)}, state=line.state, batch_size=64)


def test_a_step_that_applies_no_gradients_is_refused(ctx):
    line = Line(ctx)

    def step(batch):
        line.optimizer.apply_gradients([])
        return {"loss": line.loss(batch)}

    with pytest.raises(ValueError, match="changes no variable"):
        ctx.fit(step, state=line.state, batch_size=64)


def test_averages_that_move_are_no_training(ctx):
    line = Line(ctx)
    with ctx.scope():
        average = tf.Variable(0.0, trainable=False, name="average")

    def step(batch):
        average.assign(0.9 * average + 0.1 * tf.reduce_mean(batch["x"]))
        return {"loss": line.loss(batch)}

    state = {**line.state, "average": average}
    with pytest.raises(ValueError, match=r"changes no variable in state \((weight|bias), "):
        ctx.fit(step, state=state, batch_size=64)
    # Without an optimizer it is all that there is to train.
    assert ctx.fit(step, state={"average": average}, batch_size=64).step == 10


def test_a_step_that_changes_what_is_not_in_the_state_is_refused(ctx):
    line, other = Line(ctx), Line(ctx)
    with pytest.raises(ValueError, match="pass what it trains in state"):
        ctx.fit(line.step, state={"model": other.weight}, batch_size=64)


def test_what_is_trained_but_not_in_the_state_is_told(ctx, caplog):
    line = Line(ctx)
    with caplog.at_level(logging.WARNING, "tfos"):
        ctx.fit(line.step, state={"weight": line.weight}, batch_size=64)
    assert "(bias): no checkpoint holds it" in caplog.text


@pytest.mark.parametrize("how", ["plain", "traced", "rate of 0"])
def test_a_step_that_trains_is_taken(ctx, caplog, how):
    line = Line(ctx, rate=0.0 if how == "rate of 0" else 0.05)
    step = tf.function(line.step) if how == "traced" else line.step
    assert ctx.fit(step, state=line.state, batch_size=64).step == 10
    assert (float(line.weight) != 0.0) is (how != "rate of 0")
    assert "ClusterCoordinator.schedule" not in caplog.text


@pytest.mark.parametrize("how", ["function", "branch", "loop"])
@pytest.mark.parametrize("trains", [True, False])
def test_what_a_step_calls_is_looked_into(ctx, how, trains):
    with ctx.scope():
        weight = tf.Variable(0.0, name="weight")

    @tf.function
    def inner(x):
        return weight.assign_add(tf.reduce_sum(x)) if trains else weight * tf.reduce_sum(x)

    def step(batch):
        found = 0.0
        if how == "function":
            found = inner(batch["x"])
        if how == "branch" and tf.size(batch["x"]) > 0:
            found = inner(batch["x"])
        if how == "loop":
            for _ in tf.range(2):
                found = inner(batch["x"])
        return {"found": found}

    if trains:
        assert ctx.fit(step, state={"weight": weight}, batch_size=64).step == 10
    else:
        with pytest.raises(ValueError, match=r"changes no variable in state \(weight\)"):
            ctx.fit(step, state={"weight": weight}, batch_size=64)


def test_python_code_in_a_step_may_train(ctx):
    with ctx.scope():
        weight = tf.Variable(0.0, name="weight")

    def step(batch):
        tf.py_function(lambda: None, [], [])
        return {"x": tf.reduce_sum(batch["x"])}

    assert ctx.fit(step, state={"weight": weight}, batch_size=64).step == 10


def test_a_state_without_variables_is_refused(ctx):
    with pytest.raises(ValueError, match="no variable in state"):
        ctx.fit(lambda batch: {}, state={"model": tf.Module()}, batch_size=64)


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"state": {}}, ValueError, "state must be the models and optimizers to keep"),
        ({"state": {"model": 5}}, TypeError, r"state\['model'\] must be .* not 5 \(int\)"),
        ({"step": lambda batch: None}, TypeError, "step must return metrics by name.*not None"),
        ({"step": lambda batch: batch["x"]}, TypeError, "step must return metrics by name"),
        (
            {"step": lambda batch: {"k": batch["key"][0]}},
            TypeError,
            "step must return single numbers: 'k' has shape.*string",
        ),
        (
            {"step": lambda batch: {"x": batch["x"]}},
            TypeError,
            "step must return single numbers: 'x' has shape",
        ),
    ],
)
def test_wrong_arguments_are_named(ctx, given, error, words):
    line = Line(ctx)
    with pytest.raises(error, match=f"ctx.fit: {words}"):
        ctx.fit(**{"step": line.step, "state": line.state, "batch_size": 64, **given})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "evaluate must return a mapping of metric names to numbers, not None"),
        (0.5, r"evaluate must return a mapping .* not 0.5 \(float\)"),
        ({"auc": "0.5"}, r"evaluate must return numbers: 'auc' is '0.5' \(str\)"),
        ({"auc": [1.0, 2.0]}, "evaluate must return numbers: 'auc' is"),
    ],
)
def test_wrong_evaluations_are_named(ctx, found, words):
    line = Line(ctx)
    with pytest.raises(TypeError, match=f"ctx.fit: {words}"):
        ctx.fit(line.step, state=line.state, batch_size=64, evaluate=lambda: found)


def test_numbers_of_any_library_are_numbers(ctx):
    line = Line(ctx)
    found = {"a": np.float32(1), "b": tf.constant(2.0), "c": np.array([3]), "d": 4, "e": True}
    result = ctx.fit(line.step, state=line.state, batch_size=np.int64(64), evaluate=lambda: found)
    assert [result.metrics[f"eval_{name}"] for name in "abcde"] == [1, 2, 3, 4, 1]
    assert result.step == 10


def test_keras_3_is_refused_before_training_under_ps(request, feed):
    keras = pytest.importorskip("keras", minversion="3")
    runtime, facts = request.getfixturevalue("parameter_served")
    ctx = context(feed, runtime, facts=facts)

    class Model(keras.Model):
        pass

    for each in (Model(), keras.optimizers.Adam()):
        with pytest.raises(ConfigError, match=r"Keras 3.*--arch ps: take it from tf_keras"):
            ctx.fit(lambda batch: {}, state={"model": each}, batch_size=64)


def test_keras_3_trains_under_local(feed):
    keras = pytest.importorskip("keras", minversion="3")
    with LocalFramework().runtime(facts_of({}), None) as runtime:
        ctx = context(feed, runtime, facts=facts_of({CHIEF: Endpoint("127.0.0.1", 1)}))
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build([None, 1])
    optimizer = keras.optimizers.Adam(0.05)

    def loss_of(batch):
        return tf.reduce_mean(tf.square(model(batch["x"][:, None])[:, 0] - batch["y"]))

    def step(batch):
        with tf.GradientTape() as tape:
            loss = loss_of(batch)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}

    state = {"model": model, "optimizer": optimizer}
    assert ctx.fit(step, state=state, batch_size=64).step == 10
    with pytest.raises(ValueError, match="changes no variable"):
        ctx.fit(lambda batch: {"loss": loss_of(batch)}, state=state, batch_size=64)


# -- numbers that are none ---------------------------------------------------------------------


def diverging(line, from_step, how=float("nan")):
    """Return a step whose gradient is NaN from a step on."""

    def step(batch):
        metrics = line.step(batch)
        if line.optimizer.iterations > from_step:
            line.weight.assign(how)
        return metrics

    return step


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(make_context, tmp_path, value):
    ctx = make_context(tmp_path / "kept")
    line = Line(ctx)
    with pytest.raises(DivergedError, match=r"metric 'loss' is (nan|inf) at step \d+") as told:
        ctx.fit(diverging(line, 2, value), state=line.state, batch_size=64)
    assert told.value.step > 2
    assert ctx.checkpoints.latest() is None


def test_weights_that_are_no_numbers_are_never_kept(make_context, tmp_path):
    ctx = make_context(tmp_path / "kept")
    line = Line(ctx)
    # The metrics of the last step are from before its variables went wrong.
    with pytest.raises(DivergedError, match="variable weight holds NaN or an infinity at step 10"):
        ctx.fit(diverging(line, 9), state=line.state, batch_size=64)
    assert ctx.checkpoints.latest() is None


@pytest.mark.parametrize(("on_nan", "told"), [("warn", 1), ("ignore", 0)])
def test_training_goes_on_without_numbers_where_it_is_asked_to(
    make_context, tmp_path, caplog, on_nan, told
):
    ctx = make_context(tmp_path / "kept")
    line = Line(ctx)
    with caplog.at_level(logging.WARNING, "tfos"):
        result = ctx.fit(diverging(line, 2), state=line.state, batch_size=64, on_nan=on_nan)
    assert result.step == 10
    assert caplog.text.count("metric 'loss' is nan at step") == told
    assert ctx.checkpoints.latest().step == 10


# -- where the rows are ------------------------------------------------------------------------


@pytest.mark.parametrize("in_scope", [True, False])
def test_a_lookup_table_works_in_map(ctx, in_scope):
    with ctx.scope() if in_scope else contextlib.nullcontext():
        lookup = tf_keras.layers.StringLookup(vocabulary=[f"k{i}" for i in range(5)])
    with ctx.scope():
        counts = tf.Variable(tf.zeros([6], tf.int32), name="counts")

    def step(batch):
        counts.assign_add(tf.math.bincount(tf.cast(batch["id"], tf.int32), minlength=6))
        return {}

    ctx.fit(
        step, state={"counts": counts}, batch_size=64, map=lambda row: {"id": lookup(row["key"])}
    )
    assert counts.numpy().tolist() == [0, *[ROWS // 5] * 5]


@pytest.mark.parametrize("in_scope", [True, False])
def test_a_lookup_table_in_the_step_names_the_way_under_ps(request, feed, in_scope):
    runtime, facts = request.getfixturevalue("parameter_served")
    ctx = context(feed, runtime, facts=facts)
    with ctx.scope() if in_scope else contextlib.nullcontext():
        lookup = tf_keras.layers.StringLookup(vocabulary=["k1"])
    with ctx.scope():
        total = tf.Variable(0, dtype=tf.int64, name="total")

    def step(batch):
        total.assign_add(tf.reduce_sum(lookup(batch["key"])))
        return {}

    with pytest.raises(ValueError, match=r"ctx.fit: the step uses a lookup table.*map=\.\.\."):
        ctx.fit(step, state={"total": total}, batch_size=64)


def test_what_ps_cannot_run_names_the_way(request, feed):
    runtime, facts = request.getfixturevalue("parameter_served")
    ctx = context(feed, runtime, facts=facts)
    line = Line(ctx)
    inner = tf.function(line.step)
    mse = tf_keras.losses.MeanSquaredError()
    outside = tf.Variable(0.0, name="outside")
    cases = {
        "apply gradients in the step itself": (lambda batch: inner(batch), line.state),
        "reduction='none'": (lambda batch: {"loss": mse(batch["y"], batch["x"])}, line.state),
        "outside in state is not on a parameter server": (line.step, {"outside": outside}),
    }
    for words, (step, state) in cases.items():
        with pytest.raises(ValueError, match=f"^ctx.fit: .*{words}"):
            ctx.fit(step, state=state, batch_size=64)


def xy(batch):
    return batch["x"][:, None], batch["y"][:, None]


def test_keras_fit_is_fed_and_reports(ctx):
    with ctx.scope():
        model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
        model.build([None, 1])
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
    steps = ctx.steps_per_epoch(64)
    assert steps == 10
    model.fit(
        ctx.keras_dataset(batch_size=64, map=xy),
        steps_per_epoch=steps,
        epochs=3,
        verbose=0,
        callbacks=ctx.keras_callbacks(),
    )
    assert model.get_weights()[0].item() == pytest.approx(3, abs=0.3)
    step, _, metrics = ctx.link.reports[-1]
    assert step == 30
    assert metrics["loss"] < 0.1


def test_keras_fit_that_diverges_ends_the_run(ctx):
    with ctx.scope():
        model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
        model.build([None, 1])
        model.compile(tf_keras.optimizers.SGD(1e30), "mse")
    given = {"steps_per_epoch": 10, "verbose": 0, "callbacks": ctx.keras_callbacks()}
    with pytest.raises(DivergedError, match=r"'loss' is (nan|inf) after epoch 1"):
        model.fit(ctx.keras_dataset(batch_size=64, map=xy), epochs=3, **given)


def test_rows_of_others_name_the_way(request, feed):
    runtime, facts = request.getfixturevalue("parameter_served")
    schema = FeedSchema.from_arrow(TRAIN.schema)
    others = TrainingFeed({"train": schema, "eval": schema}, {}, feed.service, None)
    ctx = context(others, runtime, facts=facts)
    for read in (ctx.dataset, ctx.batches):
        with pytest.raises(NotFedError, match=r"'train' is not fed .*model.fit\(ctx.keras_d"):
            read()
    with pytest.raises(ConfigError, match=r"in a loop over ctx\.dataset"):
        ctx.keras_dataset("eval")
