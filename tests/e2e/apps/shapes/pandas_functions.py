"""A session and pandas UDFs at module level, beside the class."""

import pandas as pd
import tensorflow as tf
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import tfos

spark = SparkSession.builder.appName("shapes").getOrCreate()
IS_EVEN = F.col("id") % 2 == 0


@F.pandas_udf("float")
def scaled(x: pd.Series) -> pd.Series:
    return factor() * x.astype("float32")


@F.udf("float")
def doubled(x):
    return 2.0 * x


def factor():
    return 0.01


class PandasJob(tfos.Job):
    def pre_train(self, _):
        df = spark.range(2000).where(IS_EVEN).withColumn("x", scaled(F.col("id") % 100))
        return df.select("x", doubled("x").alias("y"))

    def train(self, ctx):
        with ctx.scope():
            w = tf.Variable(0.0)
            optimizer = tf.keras.optimizers.SGD(0.1)

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(w * batch["x"] - batch["y"]))
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return {"loss": loss}

        result = ctx.fit(step, batch_size=100, epochs=4, state={"w": w, "optimizer": optimizer})
        return {"steps": result.step, "moved": bool(w.numpy() > 0.1)}
