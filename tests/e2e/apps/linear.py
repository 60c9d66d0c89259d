"""Fit y = 2 a - 3 b + 1 with the common loop; every row is known, so every count can be checked."""

import os
import time
from pathlib import Path

import tfos


class LinearJob(tfos.Job):
    def pre_train(self, spark):
        from pyspark.sql import functions as F

        rows = int(self.params.get("rows", "4000"))
        partitions = int(self.params.get("partitions", "3"))
        a, b = (F.rand(seed) * 2 - 1 for seed in (1, 2))
        frame = (
            spark.range(0, rows, 1, partitions)
            .select("id", a.alias("a"), b.alias("b"))
            .withColumn("y", F.expr("2 * a - 3 * b + 1"))
        )
        self.seen_on_driver = "set in pre_train"
        if self.params.get("eval", "yes") == "no":
            return frame
        return {"train": frame, "eval": frame.where("id % 10 = 0")}

    def train(self, ctx):
        import tensorflow as tf
        import tf_keras

        assert self.seen_on_driver == "set in pre_train"
        with ctx.scope():
            weights = tf.Variable(tf.zeros([2]), name="weights")
            bias = tf.Variable(0.0, name="bias")
            seen = tf.Variable(0, dtype=tf.int64, name="seen")
            total = tf.Variable(0, dtype=tf.int64, name="total")
            optimizer = tf_keras.optimizers.SGD(float(self.params.get("rate", "0.1")))

        def predict(batch):
            x = tf.cast(tf.stack([batch["a"], batch["b"]], axis=1), tf.float32)
            return tf.linalg.matvec(x, weights) + bias

        def loss_of(batch):
            return tf.reduce_mean(tf.square(predict(batch) - tf.cast(batch["y"], tf.float32)))

        slow = float(self.params.get("slow", "0"))

        def dawdle():
            if "stepped" in self.params:
                Path(self.params["stepped"]).touch()
            time.sleep(slow)

        def step(batch):
            with tf.GradientTape() as tape:
                loss = loss_of(batch)
            variables = [weights, bias]
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            seen.assign_add(tf.size(batch["id"], out_type=tf.int64))
            total.assign_add(tf.reduce_sum(batch["id"]))
            if slow:
                tf.py_function(dawdle, [], [])
            return {"loss": loss}

        def evaluate():
            losses = [float(loss_of(batch)) for batch in ctx.dataset("eval", batch_size=100)]
            return {"loss": sum(losses) / len(losses)}

        result = ctx.fit(
            step,
            batch_size=int(self.params.get("batch_size", "50")),
            epochs=int(self.params.get("epochs", "2")),
            shuffle_rows=500,
            state={"weights": weights, "bias": bias, "seen": seen, "total": total},
            evaluate=evaluate if self.params.get("eval", "yes") == "yes" else None,
            max_steps=int(self.params["max_steps"]) if "max_steps" in self.params else None,
            stop_when=lambda found: found["loss"] < float(self.params.get("good", "-1")),
        )
        model = tf.Module()
        model.weights, model.bias = tf.Variable(weights.numpy()), tf.Variable(bias.numpy())
        model.predict = tf.function(
            lambda x: tf.linalg.matvec(x, model.weights) + model.bias,
            input_signature=[tf.TensorSpec([None, 2])],
        )
        return {
            "step": result.step,
            "rows": result.rows,
            "resumed_from": result.resumed_from,
            "stopped_early": result.stopped_early,
            "seen": int(seen.numpy()),
            "total": int(total.numpy()),
            "weights": [float(v) for v in weights.numpy()],
            "bias": float(bias.numpy()),
            "model": ctx.export(model),
            "pid": os.getpid(),
        }

    def shutdown(self):
        print("shutdown in", os.getpid(), flush=True)
