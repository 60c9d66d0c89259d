"""The MovieLens example, which must be on the path, slowed down; counts each rating's use."""

import time

from fm import FMJob


class SoakJob(FMJob):
    def pre_train(self, spark):
        from pyspark.sql import functions as F
        from pyspark.sql.window import Window

        frames = super().pre_train(spark)
        whole = frames["train"].withColumn("genre_list", F.col("genres").cast("string"))
        order = Window.orderBy("user", "movie", "rating", "genre_list")
        numbered = whole.withColumn("row", F.row_number().over(order) - 1).drop("genre_list")
        # By number, so that both workers get rows of every user.
        frames["train"] = numbered.repartition(2, "row")
        frames["eval"] = frames["eval"].withColumn("row", F.lit(0))
        return frames

    def train(self, ctx):
        import tensorflow as tf

        slow = float(ctx.params.get("slow", "0"))
        with ctx.scope():
            used = tf.Variable(tf.zeros([self.catalogue.train_rows], tf.int32), name="used")
        fit = ctx.fit

        class Counter(tf.Module):
            """Counts the rows whose gradients it is given: under a ring, those of all ranks."""

            def apply_gradients(self, grads_and_vars):
                for gradient, variable in grads_and_vars:
                    ones = tf.ones_like(gradient.indices, tf.int32)
                    variable.scatter_add(tf.IndexedSlices(ones, gradient.indices))

        counter = Counter()

        def counting(step, *, state, **reading):
            def counted(batch):
                metrics = step(batch)
                ones = tf.ones_like(batch["row"], tf.float32)
                counter.apply_gradients([(tf.IndexedSlices(ones, batch["row"], used.shape), used)])
                if slow:
                    tf.py_function(lambda: time.sleep(slow), [], [])
                return metrics

            return fit(counted, state={**state, "used": used, "counter": counter}, **reading)

        ctx.fit = counting
        found = super().train(ctx)
        if not ctx.is_chief:
            return None
        counts = tf.convert_to_tensor(used).numpy()
        return {
            "rmse": found["rmse"],
            "least": int(counts.min()),
            "most": int(counts.max()),
            "mean": float(counts.mean()),
        }
