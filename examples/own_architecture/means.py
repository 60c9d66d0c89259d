"""Let every worker take the mean of its share, and put the means together."""

import tfos


class MeansJob(tfos.Job):
    """Numbers from 0 on; ``-p rows=N`` says how many."""

    def pre_train(self, spark):
        """Return them."""
        return spark.range(int(self.params.get("rows", "1000"))).selectExpr("double(id) as x")

    def train(self, ctx):
        """Return how many of them this worker has, and their mean."""
        rows, total = 0, 0.0
        for batch in ctx.batches(batch_size=100):
            rows += len(batch["x"])
            total += batch["x"].sum()
            ctx.report(rows // 100, mean=total / rows, rows=rows)
        return {"rank": ctx.rank, "of": ctx.world_size, "rows": rows, "mean": total / rows}
