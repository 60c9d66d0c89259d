"""Read a wide table (14 float32, 26 int64) batch by batch, and say how that went."""

import os
import resource
import time

import tfos

FLOATS = [f"f{i}" for i in range(14)]
INTEGERS = [f"i{i}" for i in range(26)]


class WideJob(tfos.Job):
    """Count rows and time the epochs."""

    def pre_train(self, spark):
        """Return the table."""
        rows = int(self.params.get("rows", "5000000"))
        return wide_table(spark, rows, int(self.params.get("partitions", "8")))

    def train(self, ctx):
        """Read every batch."""
        import psutil

        host = psutil.Process(os.getppid())
        stack = {"dense": FLOATS, "ids": INTEGERS} if self.params.get("stack") else {}
        rows, epoch_rows, seen, first, ends = 0, int(self.params["rows"]), 0, 0.0, []
        host_peak, started = 0, time.time()
        reading = {"batch_size": 1024, "epochs": int(self.params.get("epochs", "2"))}
        for number, batch in enumerate(ctx.dataset(stack=stack, **reading)):
            if not rows:
                first = time.time()
            size = int(next(iter(batch.values())).shape[0])
            rows += size
            seen += size
            if seen >= epoch_rows:
                ends.append(time.time())
                seen -= epoch_rows
            if number % 500 == 0:
                host_peak = max(host_peak, host.memory_info().rss)
                ctx.report(number, rows=rows)
        return {
            "rows": rows,
            "started": started,
            "first_batch": first,
            "epoch_ends": ends,
            "training_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "host_peak_mb": host_peak >> 20,
        }


def wide_table(spark, rows, partitions):
    """Return `rows` rows of 14 float32 and 26 int64 columns, cheap to make."""
    floats = [f"cast((id * {i + 3}) % 1000 as float) as {name}" for i, name in enumerate(FLOATS)]
    integers = [f"(id * {i + 7}) % 100003 as {name}" for i, name in enumerate(INTEGERS)]
    return spark.range(0, rows, 1, partitions).selectExpr(*floats, *integers)
