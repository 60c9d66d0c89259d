"""Train the factorization machine as a between-graph tf.compat.v1 program (``--arch session``).

``-p api=monitored`` (the default) opens the session that tfos keeps checkpoints for,
``-p api=session`` plain ones; the graph is the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import tfos

INITIALISE_TIMEOUT_S = 120.0


class FMSessionJob(tfos.Job):
    """Predict ratings of MovieLens 100K with sessions on TensorFlow servers."""

    def pre_train(self, spark: Any) -> Any:
        """Return the ratings to train on and to evaluate on."""
        from etl import prepare  # here: training processes need no PySpark

        frames, self.catalogue = prepare(spark, self.params)
        return frames

    def train(self, ctx: tfos.TrainContext) -> dict[str, Any] | None:
        """Train on a worker; wait for the workers, evaluate and export on the chief."""
        import tensorflow as tf

        epochs = int(ctx.params.get("epochs", "30"))
        batch_size = int(ctx.params.get("batch_size", "1024"))
        steps = epochs * math.ceil(self.catalogue.train_rows / batch_size)
        with tf.Graph().as_default(), tf.compat.v1.device(ctx.device_setter()):
            graph = Graph(self.catalogue, int(ctx.params.get("dim", "16")), steps)
            with open_session(ctx, ctx.params.get("api", "monitored")) as session:
                if not ctx.is_chief:
                    train_rows(ctx, session, graph, epochs, batch_size)
                    return None
                ctx.await_workers()
                weights = session.run(graph.weights)
                trained = int(session.run(graph.global_step))
        return self._use(ctx, weights, trained)

    def _use(self, ctx: tfos.TrainContext, weights: list[Any], steps: int) -> dict[str, Any]:
        """Give the weights to the same model, outside of any graph, and go on with it there."""
        from model import FactorizationMachine
        from outcome import READING, deliver, make_rmse

        known = self.catalogue
        dim = weights[0].shape[1] - 1
        model = FactorizationMachine(known.sizes, known.num_genres, known.mean_rating, dim)
        for variable, value in zip((model.table, model.bias), weights, strict=True):
            variable.assign(value)
        rmse = make_rmse(model, ctx.reduce_sum)(ctx.dataset("eval", batch_size=4096, **READING))
        ctx.report(steps, eval_rmse=rmse)
        print(f"RMSE {rmse:.4f} after {steps} steps", flush=True)
        return {"rmse": rmse, "best": deliver(ctx, model, known)}


class Graph:
    """The graph that every process builds: inputs, the model on parameter servers, the update."""

    def __init__(self, known: Any, dim: int, steps: int) -> None:
        import tensorflow as tf
        from model import INITIAL_ACCUMULATOR, LEARNING_RATE, FactorizationMachine

        tf1 = tf.compat.v1
        self.global_step = tf1.train.get_or_create_global_step()
        self.fields = tf1.placeholder(tf.int32, [None, len(known.sizes)])
        self.genres = tf1.placeholder(tf.int32, [None]), tf1.placeholder(tf.int64, [None])
        self.rating = tf1.placeholder(tf.float32, [None])
        model = FactorizationMachine(known.sizes, known.num_genres, known.mean_rating, dim)
        batch = {
            "fields": self.fields,
            "genres": tf.RaggedTensor.from_row_splits(*self.genres),
            "rating": self.rating,
        }
        loss, error = model.loss(batch)
        loss *= tf.cast(tf.shape(self.rating)[0], tf.float32)  # summed over the batch
        rate = tf1.train.cosine_decay(LEARNING_RATE, self.global_step, steps)
        optimizer = tf1.train.AdagradOptimizer(rate, INITIAL_ACCUMULATOR, use_locking=True)
        self.update = optimizer.minimize(loss, self.global_step, [model.table, model.bias])
        self.rmse = tf.sqrt(error)
        self.weights = [model.table, model.bias]

    def feed(self, batch: dict[str, Any]) -> dict[Any, Any]:
        """Return the feed_dict of a NumPy batch."""
        values, row_splits = batch["genres"]
        return {
            self.fields: batch["fields"],
            self.genres[0]: values,
            self.genres[1]: row_splits,
            self.rating: batch["rating"],
        }


def train_rows(
    ctx: tfos.TrainContext, session: Any, graph: Graph, epochs: int, batch_size: int
) -> None:
    """Take a step for each batch of this worker's rows."""
    from outcome import READING

    rows = 0
    for batch in ctx.batches(
        batch_size=batch_size,
        epochs=epochs,
        shuffle_rows=100_000,
        seed=1,
        start=ctx.resume_position(),
        **READING,
    ):
        if ctx.should_stop():
            break
        step, rmse, _ = session.run(
            [graph.global_step, graph.rmse, graph.update], graph.feed(batch)
        )
        rows += len(batch["rating"])
        ctx.report(int(step), rows=rows, rmse=float(rmse))


def open_session(ctx: tfos.TrainContext, api: str) -> AbstractContextManager[Any]:
    """Open a session on this process's server, with variables initialised by the chief."""
    return ctx.monitored_session() if api == "monitored" else plain_session(ctx)


@contextmanager
def plain_session(ctx: tfos.TrainContext) -> Iterator[Any]:
    """Open a Session; the chief initialises the variables, workers wait for that."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf1.Session(ctx.server.target, config=ctx.session_config()) as session:
        if ctx.is_chief:
            session.run(tf1.global_variables_initializer())
        else:
            await_variables(ctx, session)
        yield session


def await_variables(ctx: tfos.TrainContext, session: Any) -> None:
    """Block until the chief has initialised every variable."""
    import tensorflow as tf

    missing = tf.compat.v1.report_uninitialized_variables()
    deadline = time.monotonic() + INITIALISE_TIMEOUT_S
    while len(session.run(missing)) > 0:
        if ctx.should_stop() or time.monotonic() > deadline:
            raise TimeoutError(
                f"the chief has not initialised the variables in {INITIALISE_TIMEOUT_S:.0f} s"
            )
        time.sleep(0.1)
