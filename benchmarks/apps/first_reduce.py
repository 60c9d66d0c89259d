"""Reduce one number on every rank, and say when."""

import time

import tfos


class FirstReduceJob(tfos.Job):
    """Two ranks that reduce once."""

    def pre_train(self, spark):
        """Return a few rows."""
        return spark.range(0, 1000, 1, 2)

    def train(self, ctx):
        """Reduce."""
        import tensorflow as tf

        total = float(ctx.hvd.allreduce(tf.constant(1.0), op=ctx.hvd.Sum))
        return {"total": total, "at": time.time()}
