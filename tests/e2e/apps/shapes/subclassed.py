"""A subclassed model and layer at module level, as in TensorFlow's tutorials."""

import tensorflow as tf

import tfos


class Scale(tf.keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(), initializer="ones")

    def call(self, x):
        return x * self.w


class Tower(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.scale = Scale()
        self.out = tf.keras.layers.Dense(1)

    def call(self, x):
        return self.out(self.scale(x))[:, 0]


class SubclassedJob(tfos.Job):
    def pre_train(self, spark):
        return spark.range(2000).selectExpr("float(id % 100 / 100) x", "float(id % 100 / 50) y")

    def train(self, ctx):
        with ctx.scope():
            model = Tower()
            model.build((None, 1))
            optimizer = tf.keras.optimizers.Adam(0.05)
        before = [v.numpy() for v in model.trainable_variables]

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(batch["x"][:, None]) - batch["y"]))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

        result = ctx.fit(
            step, batch_size=100, epochs=4, state={"model": model, "optimizer": optimizer}
        )
        pairs = zip(before, model.trainable_variables, strict=True)
        moved = sum(bool((old != new.numpy()).all()) for old, new in pairs)
        return {"steps": result.step, "moved": moved, "loss": result.metrics["loss"]}
