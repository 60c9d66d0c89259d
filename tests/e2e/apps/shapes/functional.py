"""A functional model."""

import tensorflow as tf
from tensorflow.keras import layers

import tfos


def make_model(width=8):
    x = tf.keras.Input((1,))
    hidden = layers.Dense(width, activation="relu")(x)
    return tf.keras.Model(x, layers.Dense(1)(hidden))


class FunctionalJob(tfos.Job):
    def pre_train(self, spark):
        return spark.range(2000).selectExpr("float(id % 100 / 100) x", "float(id % 100 / 50) y")

    def train(self, ctx):
        with ctx.scope():
            model = make_model()
            optimizer = tf.keras.optimizers.Adam(0.05)

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(batch["x"][:, None])[:, 0] - batch["y"]))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

        result = ctx.fit(
            step, batch_size=100, epochs=4, state={"model": model, "optimizer": optimizer}
        )
        return {"steps": result.step, "moved": len(model.trainable_variables)}
