"""Many shapes in one: a file in a package, relative imports, argparse, UDFs, a dataclass, a pool.

Submit with ``shop/models/train.py -- --rows 2000``.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import sys
from typing import Any

import pandas as pd
import tensorflow as tf
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import tfos

from .. import features
from ..sizes import SIZES
from .towers import Tower

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=10)
FLAGS = parser.parse_args()
spark = SparkSession.builder.getOrCreate()


@dataclasses.dataclass
class Config:
    width: int
    rate: float


@F.udf("float")
def scaled(x):
    return features.scale(x)


@F.pandas_udf("float")
def doubled(x: pd.Series) -> pd.Series:
    return 2 * x


def square(x: int) -> int:
    return x * x


def clipped(loss: tf.Tensor) -> tf.Tensor:
    if loss > 1.0:
        return loss * 0.5
    return loss


class ShopJob(tfos.Job):
    def pre_train(self, spark: Any) -> Any:
        self.config = Config(**SIZES)
        df = spark.range(FLAGS.rows).withColumn("x", scaled(F.col("id") % 100))
        return df.select("x", doubled("x").alias("y"))

    def train(self, ctx: tfos.TrainContext) -> dict[str, Any]:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            squares = pool.map(square, range(4))
        with ctx.scope():
            model = Tower(self.config.width)
            model.build((None, 1))
            optimizer = tf.keras.optimizers.Adam(self.config.rate)
        before = [v.numpy() for v in model.trainable_variables]

        def step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            with tf.GradientTape() as tape:
                error = tf.square(model(batch["x"][:, None], training=True) - batch["y"])
                loss = clipped(tf.reduce_mean(error))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

        result = ctx.fit(
            step, batch_size=100, epochs=4, state={"model": model, "optimizer": optimizer}
        )
        after = [v.numpy() for v in model.trainable_variables]
        return {
            "steps": result.step,
            "moved": [bool((a != b).any()) for a, b in zip(before, after, strict=True)],
            "squares": squares,
            "config": isinstance(self.config, Config),
            "arguments": sys.argv[1:],
            "module": __name__,
        }


if __name__ == "__main__":
    raise SystemExit("submit this file with pl_submit")
