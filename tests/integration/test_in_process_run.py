"""`tfos.testing.run_local`: a job trains in this process, on data without Spark."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tfos
from tfos.errors import EmptyDataError, JobDefinitionError, NullValueError
from tfos.testing import run_local

pytestmark = [pytest.mark.tf, pytest.mark.timeout(300)]


class MeanJob(tfos.Job):
    """Learns the mean of x; counts how often it is shut down."""

    shut_downs = 0

    def train(self, ctx):
        import tensorflow as tf

        with ctx.scope():
            mean = tf.Variable(0.0)
            seen = tf.Variable(0, dtype=tf.int64)

        def step(batch):
            error = tf.reduce_mean(tf.cast(batch["x"], tf.float32)) - mean
            mean.assign_add(0.5 * error)
            seen.assign_add(tf.size(batch["x"], out_type=tf.int64))
            return {"error": error}

        def evaluate():
            return {"rows": float(sum(len(b["x"]) for b in ctx.dataset("eval")))}

        ctx.fit(
            step,
            batch_size=100,
            epochs=int(self.params.get("epochs", "1")),
            state={"mean": mean, "seen": seen},
            evaluate=evaluate if self.params.get("eval") else None,
        )
        module = tf.Module()
        module.mean = mean
        return {
            "mean": float(mean.numpy()),
            "seen": int(seen.numpy()),
            "directory": os.getcwd(),
            "model": ctx.export(module),
        }

    def shutdown(self):
        self.shut_downs += 1


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where spools go: none may be left there."""
    where = tmp_path / "tmp"
    where.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(where))
    yield
    # TensorFlow keeps its converted code there, until the process ends.
    assert list(where.glob("tfos-*")) == []


def constant(rows: int, value: float = 3.0) -> pa.Table:
    return pa.table({"x": np.full(rows, value)})


@pytest.mark.parametrize(
    "data",
    [
        constant(1000),
        constant(1000).to_pandas(),
        [{"x": 3.0}] * 1000,
        {"train": constant(1000), "eval": constant(7).to_pandas()},
    ],
    ids=["arrow", "pandas", "rows", "mapping"],
)
def test_every_kind_of_data_is_trained_on(data):
    job = MeanJob()
    evaluated = isinstance(data, dict)
    params = {"epochs": "3", **({"eval": "yes"} if evaluated else {})}
    done = run_local(job, data, params=params)
    assert (done.outcome, done.steps, done.rows["train"]) == ("done", 30, 1000)
    assert done.result["seen"] == 3000
    assert done.result["mean"] == pytest.approx(3.0)
    assert done.result["directory"] == os.getcwd()
    assert job.shut_downs == 1
    assert done.metrics.get("eval_rows") == (7.0 if evaluated else None)


def test_checkpoints_and_models_are_those_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tfos.JobConfig(name="mean", checkpoints={"dir": "kept"}, model_dir="models")
    first = run_local(MeanJob(), constant(1000), config)
    assert Path(first.checkpoint).parent == tmp_path / "kept" / "mean"
    assert Path(first.model, "saved_model.pb").exists()
    more = config.model_copy(update={"params": {"epochs": "2"}})
    second = run_local(MeanJob(), constant(1000), more)
    assert second.resumed_from == first.checkpoint
    assert (second.steps, second.result["seen"]) == (20, 2000)
    fresh = config.checkpoints.model_copy(update={"fresh": True})
    third = run_local(MeanJob(), constant(500), config.model_copy(update={"checkpoints": fresh}))
    assert (third.resumed_from, third.steps) == (None, 5)
    warm = {"name": "warm", "params": {"epochs": "1"}}
    assert run_local(MeanJob(), constant(500), **warm).result["mean"] < 3.0
    begun = run_local(MeanJob(), constant(500), warm_start="kept/mean", **warm)
    assert (begun.resumed_from, begun.steps) == (None, 5)
    assert begun.result["seen"] == third.result["seen"] + 500
    with pytest.raises(tfos.TfosError, match="nowhere"):
        run_local(MeanJob(), constant(500), warm_start="nowhere", **warm)


class FailingJob(MeanJob):
    def train(self, ctx):
        raise LookupError("as asked")


def test_an_error_of_train_is_the_callers_with_its_own_frames():
    job = FailingJob()
    with pytest.raises(LookupError, match=r"^as asked$") as caught:
        run_local(job, constant(10))
    assert caught.traceback[-1].path == Path(__file__)
    assert job.shut_downs == 1


class BreakpointJob(MeanJob):
    def train(self, ctx):
        total = 0
        for batch in ctx.batches(batch_size=4):
            breakpoint()
            total += len(batch["x"])
        return total


def test_a_breakpoint_stops_in_train(monkeypatch):
    stops = []
    monkeypatch.setattr("sys.breakpointhook", lambda: stops.append(None))
    assert run_local(BreakpointJob(), constant(10)).result == 10
    assert len(stops) == 3


class SparkHolder(MeanJob):
    def __init__(self):
        self.lock = __import__("threading").Lock()


@pytest.mark.parametrize(
    ("job", "data", "error", "says"),
    [
        (MeanJob(), constant(0), EmptyDataError, "no rows"),
        (MeanJob(), pa.table({"x": [1.0, None]}), NullValueError, "column 'x' holds nulls"),
        (MeanJob(), pa.table({"x": [{"a": [[1]]}]}), TypeError, "column 'x.a' is"),
        (MeanJob(), {"eval": constant(1)}, tfos.TfosError, "one of them must be 'train'"),
        (MeanJob(), [1, 2], tfos.TfosError, "dataset 'train' is a list: expected a pandas"),
        (MeanJob(), [{"x": 1}, {"x": "one"}], tfos.TfosError, "cannot be read as columns"),
        (SparkHolder(), constant(1), JobDefinitionError, "its attribute 'lock'"),
    ],
)
def test_what_a_run_refuses_is_refused(job, data, error, says):
    with pytest.raises(error, match=says):
        run_local(job, data)
    assert job.shut_downs == 1


def test_a_process_that_has_imported_keras_3_may_train_with_keras_2():
    pytest.importorskip("keras", minversion="3")
    assert run_local(MeanJob(), {"train": [{"x": 1.0}]}).result["seen"] == 1
