"""Fit y = 2 a - 3 b + 1 with NumPy alone, in a loop of the job's own."""

import json
import sys
import time
from pathlib import Path

import numpy as np

import tfos

ROWS = 4000


class PlainJob(tfos.Job):
    def pre_train(self, spark):
        columns = ("id", "rand(1) * 2 - 1 as a", "rand(2) * 2 - 1 as b")
        return spark.range(0, ROWS, 1, 3).selectExpr(*columns)

    def train(self, ctx):
        assert "tensorflow" not in sys.modules
        state = {"step": 0, "seen": 0, "weights": [0.0, 0.0, 0.0]}
        resumed = ctx.checkpoints.restore(lambda directory: state.update(read(directory)))
        weights = np.array(state["weights"])

        def write(directory):
            state["weights"] = weights.tolist()
            Path(directory, "state.json").write_text(json.dumps(state))

        epochs, start = int(self.params.get("epochs", "2")), ctx.resume_position()
        for batch in ctx.batches(batch_size=50, epochs=epochs, start=start):
            x = np.stack([batch["a"], batch["b"], np.ones_like(batch["a"])], axis=1)
            error = x @ weights - (x @ [2.0, -3.0, 1.0])
            weights -= 0.2 * (x.T @ error) / len(error)
            state["step"] += 1
            state["seen"] += len(error)
            ctx.report(state["step"], loss=float(np.mean(error**2)), rows=state["seen"])
            if "stepped" in self.params:
                Path(self.params["stepped"]).touch()
            time.sleep(float(self.params.get("slow", "0")))
            if ctx.should_stop() or state["step"] == int(self.params.get("max_steps", "-1")):
                break
            if state["step"] % int(self.params.get("every", "1000")) == 0:
                ctx.checkpoints.save(state["step"], write)
        ctx.checkpoints.save(state["step"], write)
        return {
            **state,
            "resumed_from": resumed.step if resumed else 0,
            "model": ctx.export(write),
        }


def read(directory):
    return json.loads(Path(directory, "state.json").read_text())
