"""A table and two weights, trained on rows that are dealt to the ranks as `parts` says."""

import numpy as np

import tfos

ROWS, BATCH = 1000, 64


class RingJob(tfos.Job):
    """Params: ``program``, and for `fit` ``parts`` (rows of each rank) or rows in one order."""

    def pre_train(self, spark):
        from pyspark.sql import functions as F

        parts = self.params.get("parts")
        if parts is not None:
            ends = np.cumsum([int(rows) for rows in parts.split(",")]).tolist()
            ids = [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        else:
            ids = in_one_order(int(self.params["ranks"]))
        self.rows = sum(map(len, ids))
        whole = spark.sparkContext.parallelize(ids, len(ids)).flatMap(lambda part: part)
        frame = whole.map(lambda i: (int(i),)).toDF("id long")
        frame = frame.select(
            "id",
            (F.col("id") % 7).cast("int").alias("key"),
            F.array((F.col("id") % 3).cast("int"), F.lit(1)).alias("words"),
            F.col("id").cast("string").alias("text"),
            (F.sin("id")).cast("float").alias("x"),
        )
        return frame.withColumn("y", (2 * F.col("x") + F.col("key")).cast("float"))

    def train(self, ctx):
        return getattr(self, self.params.get("program", "fit"))(ctx)

    def fit(self, ctx):
        """Train by the common loop; count every row by what its gradient carries."""
        import tensorflow as tf
        import tf_keras

        table = tf.Variable(tf.random.normal([7, 2], seed=ctx.rank), name="table")
        table.assign(tf.zeros_like(table) if ctx.rank == 0 else table)
        weight = tf.Variable(float(ctx.rank), name="weight")
        counts = tf.Variable(tf.zeros([self.rows], tf.int32), name="counts")
        weighed = tf.Variable(0.0, name="weighed")
        optimizer = tf_keras.optimizers.legacy.Adam(0.05)

        class Counter(tf.Module):
            def apply_gradients(self, grads_and_vars):
                for gradient, variable in grads_and_vars:
                    ones = tf.ones_like(gradient.indices, tf.int32)
                    variable.scatter_add(tf.IndexedSlices(ones, gradient.indices))
                    weighed.assign_add(tf.reduce_sum(gradient.values))

        counter = Counter()

        def errors(batch):
            found = tf.reduce_sum(tf.nn.embedding_lookup(table, batch["key"]), 1)
            return tf.square(found + weight * batch["x"] - batch["y"])

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(errors(batch))
            variables = [table, weight]
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            ones = tf.ones_like(batch["x"])
            part = ones / tf.reduce_sum(ones)
            counter.apply_gradients([(tf.IndexedSlices(part, batch["id"], [self.rows]), counts)])
            return {"loss": loss}

        curve = []

        def evaluate():
            total, rows = 0.0, 0
            for batch in ctx.dataset(batch_size=4096, epochs=1):
                total += float(tf.reduce_sum(errors(batch)))
                rows += len(batch["id"])
            total, rows = ctx.reduce_sum([total, rows])
            curve.append(total / rows)
            return {"loss": total / rows}

        stop_at = float(self.params.get("stop_at", "0"))
        in_state = [optimizer] * (self.params.get("optimizer") != "forgotten")
        result = ctx.fit(
            step,
            batch_size=int(self.params.get("batch", BATCH // ctx.world_size)),
            epochs=int(self.params.get("epochs", "2")),
            evaluate=evaluate if self.params.get("evaluate") else None,
            stop_when=lambda found: ctx.is_chief and found["loss"] < stop_at,
            state={
                "table": table,
                "weight": weight,
                "counts": counts,
                "weighed": weighed,
                "counter": counter,
                "optimizers": in_state,
            },
        )
        seen = counts.numpy()
        return {
            "step": result.step,
            "rows": result.rows,
            "resumed_from": result.resumed_from,
            "stopped_early": result.stopped_early,
            "loss": result.metrics["loss"],
            "curve": curve,
            "weights": [float(weight), *table.numpy().ravel().tolist()],
            "fewest": int(seen.min()),
            "most": int(seen.max()),
            "weighed": float(weighed),
        }

    def ways(self, ctx):
        """Train, twice, a model that makes its variables in its first step; first try Keras 3.

        Then train by Keras's `fit`, and by Horovod's own means.
        """
        import keras
        import tensorflow as tf
        import tf_keras

        from tfos.errors import ConfigError

        try:
            ctx.fit(lambda batch: {}, state={"model": keras.Sequential([keras.layers.Dense(1)])})
        except ConfigError as error:
            refused = str(error)
        # Each rank draws weights of its own.
        tf.random.set_seed(ctx.rank)
        layers = tf_keras.layers
        model = tf_keras.Sequential(
            [layers.Dense(16, "relu"), layers.BatchNormalization(), layers.Dense(1)]
        )
        optimizer = tf_keras.optimizers.legacy.Adam(0.02)

        def error(batch):
            found = model(tf.stack([batch["x"], tf.cast(batch["key"], tf.float32)], 1), True)
            return tf.reduce_mean(tf.square(found[:, 0] - batch["y"]))

        @tf.function(reduce_retracing=True)
        def step(batch):
            with tf.GradientTape() as tape:
                loss = error(batch)
            weights = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

        state = {"model": model, "optimizer": optimizer}
        for _ in range(2):
            # 24 of 1000 rows are left for the last step of an epoch: uneven.
            ctx.fit(step, batch_size=61, epochs=4, state=state)
        # Of all rows that this rank has: one step's loss says little.
        loss = float(error(next(iter(ctx.dataset(batch_size=self.rows, epochs=1)))))
        total = [float(tf.reduce_sum(tf.abs(weight))) for weight in model.trainable_variables]
        totals = ctx.hvd.allgather(tf.constant([total])).numpy().tolist()
        return {
            "refused": refused,
            "loss": loss,
            "totals": totals,
            "keras": self.keras(ctx, ctx.keras_callbacks()),
            "two": self.two_optimizers(ctx),
            "own": self.own(ctx),
        }

    def alone(self, ctx):
        """Train by Keras's `fit` as it stands: every rank by itself."""
        return self.keras(ctx, [])

    def keras(self, ctx, callbacks):
        import tensorflow as tf
        import tf_keras

        tf.random.set_seed(ctx.rank)
        model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
        model.compile(tf_keras.optimizers.Adam(0.05), "mse")

        def x_and_y(batch):
            x = tf.stack([batch["x"], tf.cast(batch["key"], tf.float32)], 1)
            return x, batch["y"][:, tf.newaxis]

        history = model.fit(
            ctx.keras_dataset(batch_size=61, map=x_and_y),
            steps_per_epoch=ctx.steps_per_epoch(61),
            epochs=6,
            verbose=0,
            callbacks=callbacks,
        )
        weights = [float(weight) for weight in model.get_weights()[0].ravel()]
        if not callbacks:
            return {"weights": weights}
        return {
            "losses": history.history["loss"],
            "weights": ctx.hvd.allgather(tf.constant([weights])).numpy().tolist(),
        }

    def two_optimizers(self, ctx):
        """Train two layers by Keras's `fit`, each by an optimizer of its own; return weights."""
        import tensorflow as tf
        import tf_keras

        class Two(tf_keras.Model):
            def __init__(self):
                super().__init__()
                self.layers_of = [tf_keras.layers.Dense(1) for _ in range(2)]
                self.second = tf_keras.optimizers.Adam(0.05)

            def train_step(self, data):
                x, y = data
                with tf.GradientTape(persistent=True) as tape:
                    errors = [tf.reduce_mean(tf.square(each(x) - y)) for each in self.layers_of]
                optimizers = (self.optimizer, self.second)
                for error, layer, by in zip(errors, self.layers_of, optimizers, strict=True):
                    weights = layer.trainable_variables
                    by.apply_gradients(zip(tape.gradient(error, weights), weights, strict=True))
                return {"loss": errors[0]}

        tf.random.set_seed(ctx.rank)
        model = Two()
        model.compile(tf_keras.optimizers.Adam(0.05))
        rows = ctx.keras_dataset(
            batch_size=61, map=lambda batch: (batch["x"][:, None], batch["y"][:, None])
        )
        model.fit(rows, steps_per_epoch=8, epochs=1, verbose=0, callbacks=ctx.keras_callbacks())
        weights = [float(weight) for each in model.get_weights() for weight in each.ravel()]
        return ctx.hvd.allgather(tf.constant([weights])).numpy().tolist()

    def own(self, ctx):
        """Train by Horovod's own means, as its users write it."""
        import horovod.tensorflow as hvd
        import tensorflow as tf

        assert hvd is ctx.hvd
        assert (hvd.rank(), hvd.size()) == (ctx.rank, ctx.world_size)
        weight = tf.Variable(float(hvd.rank()))
        hvd.broadcast_variables([weight], root_rank=0)
        started_at = float(weight)
        optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.5)
        steps = ctx.steps_per_epoch(50)
        for batch in ctx.dataset(batch_size=50, epochs=None).take(steps):
            with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
                loss = tf.reduce_mean(tf.square(weight * batch["x"] - 2 * batch["x"]))
            (gradient,) = tape.gradient(loss, [weight])
            optimizer.apply_gradients([(gradient, weight)])
        weights = hvd.allgather(tf.reshape(weight, [1])).numpy().tolist()
        return {"started_at": started_at, "steps": steps, "weights": weights}


def in_one_order(ranks):
    """Deal rows so that the ranks' batches together are the same BATCH rows on any number."""
    share = BATCH // ranks
    return [
        [
            row
            for start in range(rank * share, ROWS, BATCH)
            for row in range(start, min(start + share, ROWS))
        ]
        for rank in range(ranks)
    ]
