"""Fit y = 2 a - 3 b + 1 and count how often each row took part, in variables that are kept."""

import time

import tfos


class CountedJob(tfos.Job):
    def pre_train(self, spark):
        from pyspark.sql import functions as F

        a, b = (F.rand(seed) * 2 - 1 for seed in (1, 2))
        return (
            spark.range(0, int(self.params["rows"]), 1, 4)
            .select("id", a.alias("a"), b.alias("b"))
            .withColumn("y", F.expr("2 * a - 3 * b + 1"))
        )

    def train(self, ctx):
        import tensorflow as tf
        import tf_keras

        rows, slow = int(self.params["rows"]), float(self.params["slow"])
        with ctx.scope():
            weights = tf.Variable(tf.zeros([3]), name="weights")
            counts = tf.Variable(tf.zeros([rows], tf.int32), name="counts")
            optimizer = tf_keras.optimizers.SGD(0.1)

        def step(batch):
            x = tf.stack([batch["a"], batch["b"], tf.ones_like(batch["a"])], axis=1)
            y = tf.cast(batch["y"], tf.float32)
            with tf.GradientTape() as tape:
                found = tf.linalg.matvec(tf.cast(x, tf.float32), weights)
                loss = tf.reduce_mean(tf.square(found - y))
            optimizer.apply_gradients([(tape.gradient(loss, weights), weights)])
            ones = tf.ones_like(batch["id"], tf.int32)
            counts.scatter_add(tf.IndexedSlices(ones, batch["id"]))
            tf.py_function(lambda: time.sleep(slow), [], [])
            return {"loss": loss}

        result = ctx.fit(
            step,
            batch_size=50,
            epochs=int(self.params["epochs"]),
            shuffle_rows=200,
            state={"weights": weights, "counts": counts},
        )
        found = counts.numpy()
        return {
            "step": result.step,
            "resumed_from": result.resumed_from,
            "seen": int(found.sum()),
            "fewest": int(found.min()),
            "most": int(found.max()),
            "loss": float(result.metrics["loss"]),
        }
