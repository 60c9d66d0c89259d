"""Lines that are for ``python guarded.py`` alone."""

import tensorflow as tf

import tfos


class GuardedJob(tfos.Job):
    def pre_train(self, spark):
        return spark.range(2000).selectExpr("float(id % 100 / 100) x", "float(id % 100 / 50) y")

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


if __name__ == "__main__":
    raise SystemExit("submit this file with pl_submit")
