"""Annotated functions with Python's own control flow over tensors, which AutoGraph converts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import tfos


def clipped(loss: tf.Tensor, limit: float = 1.0) -> tf.Tensor:
    if loss > limit:
        return loss * 0.5
    return loss


class AnnotatedJob(tfos.Job):
    def pre_train(self, spark: Any) -> Any:
        return spark.range(2000).selectExpr("float(id % 100 / 100) x", "float(id % 100 / 50) y")

    def train(self, ctx: tfos.TrainContext) -> dict[str, Any]:
        with ctx.scope():
            w = tf.Variable(0.0)
            optimizer = tf.keras.optimizers.SGD(0.1)

        def step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = clipped(tf.reduce_mean(tf.square(w * batch["x"] - batch["y"])))
                for _ in tf.range(2):
                    loss += 0.0
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return {"loss": loss}

        result = ctx.fit(step, batch_size=100, epochs=4, state={"w": w, "optimizer": optimizer})
        return {"steps": result.step, "moved": bool(w.numpy() > 0.1)}
