"""Cells of a notebook, with a session of its own: run with ``python notebook.py ARCH``."""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import annotated
import tensorflow as tf
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import tfos

spark = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false").getOrCreate()


@F.udf("float")
def doubled(x):
    return 2.0 * x


class Tower(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.out = tf.keras.layers.Dense(1)

    def call(self, x):
        return self.out(x)[:, 0]


class NotebookJob(tfos.Job):
    def pre_train(self, _):
        df = spark.range(2000).selectExpr("float(id % 100 / 100) x")
        return df.withColumn("y", doubled("x"))

    def train(self, ctx):
        with ctx.scope():
            model = Tower()
            model.build((None, 1))
            optimizer = tf.keras.optimizers.Adam(0.05)

        def step(batch):
            with tf.GradientTape() as tape:
                error = tf.square(model(batch["x"][:, None]) - batch["y"])
                loss = annotated.clipped(tf.reduce_mean(error))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

        result = ctx.fit(
            step, batch_size=100, epochs=4, state={"model": model, "optimizer": optimizer}
        )
        return {"steps": result.step, "moved": len(model.trainable_variables)}


if __name__ == "__main__":
    print(tfos.run(NotebookJob(), spark, tfos.JobConfig(arch=sys.argv[1])).result)
