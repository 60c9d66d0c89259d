"""Go wrong in one way, chosen by -p fault=NAME."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import tfos


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no text of mine")


class FaultyJob(tfos.Job):
    def pre_train(self, spark):
        fault = self.params["fault"]
        self.where = self.params.get("where", "chief")
        if fault == "pre_train_raises":
            raise LookupError("no such table: clicks")
        if fault == "pre_train_raises_oddly":
            raise OddError
        if fault == "null":
            return spark.sql("select id, if(id = 7, null, id) as value from range(100)")
        if fault == "spark_raises":
            bad = "if(id = 50, bigint(raise_error('bad row')), id) as value"
            return spark.range(100).selectExpr(bad)
        if fault == "pre_train_stops":
            spark.stop()
            other = type(spark).builder.master("local[2]").getOrCreate()
            return other.range(100)
        if fault == "pre_train_hangs":
            time.sleep(600)
        if fault == "pre_train_waits":
            print("pre_train waits for Spark", file=sys.stderr, flush=True)
            spark.sparkContext.parallelize([0], 1).foreach(lambda _: time.sleep(600))
        if fault == "spark_stops":
            # As Spark itself does when its application has ended in the cluster.
            spark.sparkContext._jsc.sc().stop()
            spark.range(9).count()
        return spark.range(2000).selectExpr("id", "cast(id as double) as value")

    def train(self, ctx):
        fault = self.params["fault"]
        if f"{ctx.role}-{ctx.index}".startswith(self.where):
            getattr(self, f"do_{fault}", lambda ctx: None)(ctx)
        rows = sum(len(batch["id"]) for batch in ctx.batches()) if ctx.role != "chief" else 0
        if ctx.world_size == 1:
            rows = sum(len(batch["id"]) for batch in ctx.batches())
        return {"rows": rows}

    def do_raises(self, ctx):
        ctx.report(17, loss=0.5)
        raise ZeroDivisionError("the learning rate is zero")

    def do_os_exit(self, ctx):
        print("about to leave", flush=True)
        os._exit(9)

    def do_killed(self, ctx):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_crashes(self, ctx):
        ctypes.string_at(0)

    def do_prints(self, ctx):
        line = "x" * 99
        for _ in range(1_000_000):
            print(line)

    def do_hangs(self, ctx):
        ctx.report(1, loss=1.0)
        if "hung" in self.params:
            Path(self.params["hung"]).touch()
        time.sleep(600)

    def do_eats(self, ctx):
        ctx.report(1, loss=1.0)
        eaten = [bytearray(b"x" * (64 << 20)) for _ in range(64)]
        time.sleep(600)
        del eaten

    def do_grandchild(self, ctx):
        import subprocess

        subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 600 & wait; sleep 600"])
        time.sleep(600)

    def shutdown(self):
        if self.params.get("shutdown") == "raises":
            raise OSError("shutdown failed too")
