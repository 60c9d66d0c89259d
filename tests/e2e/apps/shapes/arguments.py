"""argparse on sys.argv at module level: submit with ``arguments.py -- --rows 2000 --rate 0.1``."""

import argparse

import tensorflow as tf

import tfos

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=10)
parser.add_argument("--rate", type=float, default=0.0)
FLAGS = parser.parse_args()


class ArgumentsJob(tfos.Job):
    def pre_train(self, spark):
        return spark.range(FLAGS.rows).selectExpr("float(id % 9) x", "float(2 * (id % 9)) y")

    def train(self, ctx):
        with ctx.scope():
            w = tf.Variable(0.0)
            optimizer = tf.keras.optimizers.SGD(FLAGS.rate * 0.01)

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(w * batch["x"] - batch["y"]))
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return {"loss": loss}

        result = ctx.fit(step, batch_size=100, epochs=4, state={"w": w, "optimizer": optimizer})
        return {"steps": result.step, "moved": bool(w.numpy() != 0.0)}
