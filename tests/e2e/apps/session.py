"""Count every row by between-graph programs: a low-level Session, MonitoredTrainingSession, or
tfos's own monitored session, which loses nothing."""

import time

import tfos


class SessionJob(tfos.Job):
    def pre_train(self, spark):
        frame = spark.range(0, 3000, 1, 5).selectExpr("id", "cast(id % 7 as double) as x")
        return {"train": frame, "eval": frame.where("id < 10")}

    def train(self, ctx):
        import tensorflow as tf

        v1 = tf.compat.v1
        programs = {
            "low_level": self.low_level,
            "monitored": self.monitored,
            "kept": self.kept,
        }
        program = programs[self.params["program"]]
        with tf.Graph().as_default():
            with v1.device(ctx.device_setter()):
                partitioner = v1.fixed_size_partitioner(len(ctx.cluster_spec["ps"]))
                table = v1.get_variable(
                    "table", [64, 4], initializer=v1.zeros_initializer(), partitioner=partitioner
                )
                seen = v1.get_variable("seen", [], tf.int64, v1.zeros_initializer())
                total = v1.get_variable("total", [], tf.int64, v1.zeros_initializer())
                step = v1.train.get_or_create_global_step()
                ids = v1.placeholder(tf.int64, [None])
                update = tf.group(
                    v1.assign_add(seen, tf.size(ids, out_type=tf.int64), use_locking=True),
                    v1.assign_add(total, tf.reduce_sum(ids), use_locking=True),
                    v1.assign_add(step, 1, use_locking=True),
                )
                ready = v1.report_uninitialized_variables()
                init = v1.global_variables_initializer()
            devices = sorted({part.device for part in table})
            counts = program(ctx, v1, init, ready, ids, update, [seen, total, step])
        return {"seen": counts[0], "total": counts[1], "step": counts[2], "devices": devices}

    def monitored(self, ctx, v1, init, ready, ids, update, counters):
        with v1.train.MonitoredTrainingSession(
            ctx.server.target, is_chief=ctx.is_chief, config=ctx.session_config()
        ) as session:
            return self.work(ctx, session, ids, update, counters)

    def kept(self, ctx, v1, init, ready, ids, update, counters):
        with ctx.monitored_session() as session:
            return self.work(ctx, session, ids, update, counters)

    def low_level(self, ctx, v1, init, ready, ids, update, counters):
        with v1.Session(ctx.server.target, config=ctx.session_config()) as session:
            if ctx.is_chief:
                session.run(init)
            while len(session.run(ready)):
                time.sleep(0.05)
            return self.work(ctx, session, ids, update, counters)

    def work(self, ctx, session, ids, update, counters):
        if ctx.is_chief:
            assert sum(len(b["id"]) for b in ctx.batches("eval")) == 10
            ctx.await_workers()
            ctx.report(int(session.run(counters[2])))
        else:
            start = ctx.resume_position()
            for batch in ctx.batches(batch_size=100, epochs=2, shuffle_rows=300, start=start):
                session.run(update, {ids: batch["id"]})
                time.sleep(float(self.params.get("slow", "0")))
        return [int(value) for value in session.run(counters)]
