"""Preprocessing by Keras's StringLookup in pre_train; its vocabulary goes along on the Job."""

import tensorflow as tf
from pyspark.sql import functions as F

import tfos


class LookupJob(tfos.Job):
    def pre_train(self, spark):
        df = spark.range(2000).selectExpr("concat('w', id % 7) word", "float(id % 7) y")
        lookup = tf.keras.layers.StringLookup()
        lookup.adapt([row.word for row in df.select("word").distinct().collect()])
        self.vocabulary = lookup.get_vocabulary()
        ids = {word: int(lookup(word)) for word in self.vocabulary}
        pairs = [F.lit(part) for pair in ids.items() for part in pair]
        return df.withColumn("id", F.create_map(*pairs)[F.col("word")]).drop("word")

    def train(self, ctx):
        with ctx.scope():
            table = tf.keras.layers.Embedding(len(self.vocabulary), 1)
            table.build(())
            optimizer = tf.keras.optimizers.legacy.Adagrad(1.0)

        def step(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(table(batch["id"])[:, 0] - batch["y"]))
            variables = table.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

        result = ctx.fit(
            step, batch_size=100, epochs=4, state={"table": table, "optimizer": optimizer}
        )
        return {"steps": result.step, "moved": len(self.vocabulary)}
