"""Reduce one number on every rank by horovod.spark.run, and print when."""

import time

from pyspark.sql import SparkSession


def reduce_once():
    """Return the sum, and when it was known."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.init()
    total = float(hvd.allreduce(tf.constant(1.0), op=hvd.Sum))
    return total, time.time()


if __name__ == "__main__":
    import horovod.spark

    spark = SparkSession.builder.getOrCreate()
    started = time.time()
    found = horovod.spark.run(reduce_once, num_proc=2, use_gloo=True, verbose=0)
    assert [total for total, _ in found] == [2.0, 2.0]
    print("first_reduce", started, max(at for _, at in found), flush=True)
    spark.stop()
