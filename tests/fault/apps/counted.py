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
            weighed = tf.Variable(0.0, name="weighed")
            optimizer = tf_keras.optimizers.SGD(0.1)

        class Counter(tf.Module):
            """Counts the rows whose gradients it is given: under a ring, those of all ranks."""

            def apply_gradients(self, grads_and_vars):
                for gradient, variable in grads_and_vars:
                    ones = tf.ones_like(gradient.indices, tf.int32)
                    variable.scatter_add(tf.IndexedSlices(ones, gradient.indices))
                    weighed.assign_add(tf.reduce_sum(gradient.values))

        counter = Counter()

        def step(batch):
            x = tf.stack([batch["a"], batch["b"], tf.ones_like(batch["a"])], axis=1)
            y = tf.cast(batch["y"], tf.float32)
            with tf.GradientTape() as tape:
                found = tf.linalg.matvec(tf.cast(x, tf.float32), weights)
                loss = tf.reduce_mean(tf.square(found - y))
            optimizer.apply_gradients([(tape.gradient(loss, weights), weights)])
            # Of a mean over the batch, each row has an equal part.
            ones = tf.ones_like(batch["a"], tf.float32)
            part = ones / tf.reduce_sum(ones)
            counter.apply_gradients([(tf.IndexedSlices(part, batch["id"], [rows]), counts)])
            tf.py_function(lambda: time.sleep(slow), [], [])
            return {"loss": loss}

        result = ctx.fit(
            step,
            batch_size=50,
            epochs=int(self.params["epochs"]),
            shuffle_rows=200,
            state={
                "weights": weights,
                "counts": counts,
                "weighed": weighed,
                "optimizer": optimizer,
                "counter": counter,
            },
        )
        found = counts.numpy()
        return {
            "step": result.step,
            "resumed_from": result.resumed_from,
            "seen": int(found.sum()),
            "fewest": int(found.min()),
            "most": int(found.max()),
            "weighed": float(weighed),
            "loss": float(result.metrics["loss"]),
        }
