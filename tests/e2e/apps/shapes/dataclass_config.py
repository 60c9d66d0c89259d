"""A configuration in a dataclass, and an enum, kept on the Job."""

import dataclasses
import enum

import tensorflow as tf

import tfos


class Loss(enum.Enum):
    SQUARED = "squared"
    ABSOLUTE = "absolute"


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.05
    loss: Loss = Loss.SQUARED


class DataclassJob(tfos.Job):
    def pre_train(self, spark):
        self.config = Config(rate=0.1)
        return spark.range(2000).selectExpr("float(id % 100 / 100) x", "float(id % 100 / 50) y")

    def train(self, ctx):
        assert isinstance(self.config, Config)
        assert self.config.loss is Loss.SQUARED
        assert dataclasses.replace(self.config, rate=0.05) == Config()
        with ctx.scope():
            w = tf.Variable(0.0)
            optimizer = tf.keras.optimizers.SGD(self.config.rate)

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(w * batch["x"] - batch["y"]))
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return {"loss": loss}

        result = ctx.fit(step, batch_size=100, epochs=4, state={"w": w, "optimizer": optimizer})
        return {"steps": result.step, "moved": bool(w.numpy() > 0.1)}
