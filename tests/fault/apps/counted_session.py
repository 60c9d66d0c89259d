"""Fit y = 2 a - 3 b + 1 by a between-graph program that counts how often each row took part."""

import time

from counted import CountedJob


class CountedSessionJob(CountedJob):
    def train(self, ctx):
        import tensorflow as tf

        v1 = tf.compat.v1
        rows = int(self.params["rows"])
        with tf.Graph().as_default():
            with v1.device(ctx.device_setter()):
                weights = v1.get_variable("weights", [3], initializer=v1.zeros_initializer())
                counts = v1.get_variable("counts", [rows], tf.int32, v1.zeros_initializer())
                step = v1.train.get_or_create_global_step()
                fed = {
                    name: v1.placeholder(kind, [None], name)
                    for name, kind in (("id", tf.int64), ("a", tf.float64), ("b", tf.float64))
                }
                fed["y"] = v1.placeholder(tf.float64, [None], "y")
                x = tf.stack([fed["a"], fed["b"], tf.ones_like(fed["a"])], axis=1)
                found = tf.linalg.matvec(tf.cast(x, tf.float32), weights)
                loss = tf.reduce_mean(tf.square(found - tf.cast(fed["y"], tf.float32)))
                learn = v1.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step)
                ones = tf.ones_like(fed["id"], tf.int32)
                update = tf.group(learn, v1.scatter_add(counts, fed["id"], ones, use_locking=True))
            with ctx.monitored_session() as session:
                start = ctx.resume_position()
                self.resumed_from = int(session.run(step)) if ctx.checkpoints.latest() else 0
                last = self.work(ctx, session, update, loss, fed, start)
                number, found = session.run([step, counts])
        return {
            "step": int(number),
            "resumed_from": self.resumed_from,
            "seen": int(found.sum()),
            "fewest": int(found.min()),
            "most": int(found.max()),
            "loss": last,
        }

    def work(self, ctx, session, update, loss, fed, start):
        if ctx.is_chief:
            ctx.await_workers()
            row = {"id": 0, "a": 0.5, "b": 0.5, "y": 2 * 0.5 - 3 * 0.5 + 1}
            return float(session.run(loss, {fed[name]: [value] for name, value in row.items()}))
        for batch in ctx.batches(
            batch_size=50, epochs=int(self.params["epochs"]), shuffle_rows=200, start=start
        ):
            session.run(update, {tensor: batch[name] for name, tensor in fed.items()})
            time.sleep(float(self.params["slow"]))
        return 0.0
