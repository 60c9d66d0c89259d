"""Train the factorization machine with the common loop: one body for `local`, `ps` and `ring`.

Submit with ``pl_submit examples/fm_movielens/fm.py``; README.md lists the parameters.
"""

from __future__ import annotations

import math
from typing import Any

import tfos


class FMJob(tfos.Job):
    """Predict ratings of MovieLens 100K."""

    def pre_train(self, spark: Any) -> Any:
        """Return the ratings to train on and to evaluate on."""
        from etl import prepare  # here: training processes need no PySpark

        frames, self.catalogue = prepare(spark, self.params)
        return frames

    def train(self, ctx: tfos.TrainContext) -> dict[str, Any]:
        """Fit, evaluate, export and recommend."""
        import tensorflow as tf
        import tf_keras
        from model import INITIAL_ACCUMULATOR, LEARNING_RATE, FactorizationMachine
        from outcome import READING, deliver, make_rmse

        known = self.catalogue
        dim = int(ctx.params.get("dim", "16"))
        epochs = int(ctx.params.get("epochs", "30"))
        batch_size = int(ctx.params.get("batch_size", "1024"))
        steps = epochs * math.ceil(known.train_rows / batch_size)

        with ctx.scope():
            model = FactorizationMachine(known.sizes, known.num_genres, known.mean_rating, dim)
            rate = tf_keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
            optimizer = tf_keras.optimizers.legacy.Adagrad(rate, INITIAL_ACCUMULATOR)

        def step(batch):
            with tf.GradientTape() as tape:
                loss, squared_error = model.loss(batch)
                # Summed over the batch; under `ring`, which averages, over that of all ranks.
                loss *= tf.cast(len(batch["rating"]) * ctx.world_size, tf.float32)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"rmse": tf.sqrt(squared_error)}

        rmse = make_rmse(model, ctx.reduce_sum)
        result = ctx.fit(
            step,
            # Under `ring` the ranks' batches together are one step's.
            batch_size=batch_size // ctx.world_size,
            epochs=epochs,
            shuffle_rows=known.train_rows,
            seed=1,
            state={"model": model, "optimizer": optimizer},
            evaluate=lambda: {"rmse": rmse(ctx.dataset("eval", batch_size=4096, **READING))},
            evaluate_every_epochs=10,
            **READING,
        )
        if not ctx.is_chief:
            return {}
        print(f"RMSE {result.metrics['eval_rmse']:.4f} after {result.step} steps", flush=True)
        return {"rmse": result.metrics["eval_rmse"], "best": deliver(ctx, model, known)}
