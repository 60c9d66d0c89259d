"""Train a linear model with scikit-learn, one batch after the other, under ``--arch plain``.

Submit with ``pl_submit --arch plain examples/fm_movielens/linear_sklearn.py``. The ratings never
lie in memory as a whole: each batch is one call of ``partial_fit``.
"""

from __future__ import annotations

from typing import Any

import tfos

BATCH_ROWS = 4096
SAVE_EVERY_STEPS = 50


class LinearJob(tfos.Job):
    """Predict ratings of MovieLens 100K by one weight per value of each feature."""

    def pre_train(self, spark: Any) -> Any:
        """Return the ratings to train on and to evaluate on."""
        from etl import prepare

        frames, self.catalogue = prepare(spark, self.params)
        return frames

    def train(self, ctx: tfos.TrainContext) -> dict[str, Any]:
        """Fit, evaluate and export."""
        import numpy as np
        from catalogue import FIELDS
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import SGDRegressor

        known = self.catalogue
        reading: dict[str, Any] = {"columns": ("fields", "rating"), "stack": {"fields": FIELDS}}
        # The columns of a field's values follow those of the field before it.
        ends = np.cumsum(known.sizes)
        model = SGDRegressor(learning_rate="constant", eta0=0.01, alpha=1e-5)
        step = 0

        def features(batch: dict[str, np.ndarray]) -> csr_matrix:
            columns = batch["fields"] + (ends - known.sizes)
            rows, ones = len(columns), np.ones(columns.size)
            starts = np.arange(0, columns.size + 1, columns.shape[1])
            return csr_matrix((ones, columns.ravel(), starts), shape=(rows, ends[-1]))

        def write(directory: str) -> None:
            # Arrays, not a pickle: anyone who can write there could have a pickle run anything.
            weights = {"coef": model.coef_, "intercept": model.intercept_, "t": model.t_}
            np.savez(f"{directory}/weights.npz", step=step, mean=known.mean_rating, **weights)

        def read(directory: str) -> None:
            nonlocal step
            saved = np.load(f"{directory}/weights.npz")
            step, model.t_ = int(saved["step"]), float(saved["t"])
            model.coef_, model.intercept_ = saved["coef"], saved["intercept"]

        def rmse() -> float:
            squares, rows = 0.0, 0
            for batch in ctx.batches("eval", batch_size=BATCH_ROWS, **reading):
                errors = model.predict(features(batch)) + known.mean_rating - batch["rating"]
                squares, rows = squares + float(errors @ errors), rows + len(errors)
            return float(np.sqrt(squares / rows))

        ctx.checkpoints.restore(read)
        batches = ctx.batches(
            batch_size=BATCH_ROWS,
            epochs=int(ctx.params.get("epochs", "10")),
            shuffle_rows=known.train_rows,
            seed=1,
            start=ctx.resume_position(),
            **reading,
        )
        for batch in batches:
            model.partial_fit(features(batch), batch["rating"] - known.mean_rating)
            step += 1
            ctx.report(step)
            if step % SAVE_EVERY_STEPS == 0:
                ctx.checkpoints.save(step, write)
        ctx.checkpoints.save(step, write)
        found = rmse()
        ctx.report(step, rmse=found)
        print(f"RMSE {found:.4f} after {step} steps", flush=True)
        ctx.export(write)
        return {"rmse": found}
