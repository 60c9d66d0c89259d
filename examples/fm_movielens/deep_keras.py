"""Train a small deep network with Keras's own ``fit`` and Horovod's callbacks, under `ring`.

Submit with ``pl_submit --arch ring --num-workers 2 examples/fm_movielens/deep_keras.py``. The same
body trains on one process under `local`. Parameters as for ``fm.py``.
"""

from __future__ import annotations

from typing import Any

import tfos


class DeepJob(tfos.Job):
    """Predict ratings of MovieLens 100K from embeddings and two dense layers."""

    def pre_train(self, spark: Any) -> Any:
        """Return the ratings to train on and to evaluate on."""
        from etl import prepare  # here: training processes need no PySpark

        frames, self.catalogue = prepare(spark, self.params)
        return frames

    def train(self, ctx: tfos.TrainContext) -> dict[str, Any]:
        """Fit, evaluate over all ranks."""
        import tensorflow as tf
        import tf_keras
        from outcome import READING, make_rmse

        plain = tf.autograph.experimental.do_not_convert  # a pickled lambda has no source to read
        epochs = int(ctx.params.get("epochs", "15"))
        batch_size = int(ctx.params.get("batch_size", "1024")) // ctx.world_size
        model = make_model(self.catalogue.sizes, self.catalogue.mean_rating)
        optimizer = tf_keras.optimizers.legacy.Adam(0.002)
        callbacks = [make_report(ctx)]
        if ctx.hvd is not None:
            import horovod.tensorflow.keras as hvd

            optimizer = hvd.DistributedOptimizer(optimizer)
            callbacks += [
                hvd.callbacks.BroadcastGlobalVariablesCallback(0),
                hvd.callbacks.MetricAverageCallback(),
            ]
        model.compile(optimizer, "mse")
        steps = ctx.steps_per_epoch(batch_size)
        reading = {"shuffle_rows": self.catalogue.train_rows, "seed": 1, **READING}
        rows = ctx.dataset(batch_size=batch_size, epochs=None, **reading)
        history = model.fit(
            rows.map(plain(lambda batch: (batch["fields"], batch["rating"]))),
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=callbacks,
            verbose=0,
        )
        rmse = make_rmse(plain(lambda batch: model(batch["fields"])[:, 0]), ctx.reduce_sum)
        found = rmse(ctx.dataset("eval", batch_size=4096, **READING))
        if ctx.is_chief:
            print(f"RMSE {found:.4f} after {epochs * steps} steps", flush=True)
        return {"rmse": found, "loss": [float(loss) for loss in history.history["loss"]]}


def make_model(sizes: list[int], mean: float) -> Any:
    """Return a network of one embedding for each field and two dense layers."""
    import tf_keras
    from tf_keras import layers

    fields = tf_keras.Input([len(sizes)], dtype="int32")
    regular = tf_keras.regularizers.L2(1e-6)
    parts = [
        layers.Embedding(size, 16, embeddings_regularizer=regular)(fields[:, number])
        for number, size in enumerate(sizes)
    ]
    hidden = layers.Concatenate()(parts)
    for width in (64, 32):
        hidden = layers.Dropout(0.3)(layers.Dense(width, "relu")(hidden))
    start = tf_keras.initializers.Constant(mean)
    return tf_keras.Model(fields, layers.Dense(1, bias_initializer=start)(hidden))


def make_report(ctx: tfos.TrainContext) -> Any:
    """Return a callback that tells the run how far training is."""
    import tf_keras

    class Report(tf_keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            ctx.report(self.steps)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ctx.report(self.steps, logs)

    return Report()
