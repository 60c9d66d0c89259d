"""Run the common training loop: resume, steps, epochs, checkpoints, evaluation, early stop.

How a step is taken (here, scheduled onto workers, or by all ranks together) is a `Steps` of the
architecture; everything else is the same for all of them and stands here once.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tfos.arguments import numbers_by_name, shown
from tfos.base import TrainContext
from tfos.errors import DivergedError
from tfos.frameworks.contract import STATE, saved_variables
from tfos.frameworks.trained_state import TrainedState
from tfos.read_plan import FeedPosition
from tfos.training_parts import FitPlan, FitResult

__all__ = ["LOST_RESULT", "OwnSteps", "StepResult", "Steps", "checked_metrics", "run_loop"]

log = logging.getLogger(__name__)

REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class StepResult:
    """One completed step.

    Parameters
    ----------
    rows
        How many it was taken on; with 0 there was no step, only news of feeds.
    metrics
        What it returned.
    positions
        How far each feed it took rows from has been used with it, by feed index.
    over
        Feeds now known to have no more rows.
    """

    rows: int
    metrics: Mapping[str, Any]
    positions: Mapping[int, FeedPosition]
    over: frozenset[int] = frozenset()

    @classmethod
    def of_batch(
        cls, feed: int, position: FeedPosition, rows: int, metrics: Mapping[str, Any]
    ) -> StepResult:
        """Return the result of a step on one batch of one feed; 0 rows: that feed is over."""
        if rows == 0:
            return cls(0, {}, {}, frozenset({feed}))
        return cls(rows, metrics, {feed: position})


LOST_RESULT = StepResult(0, {}, {})
"""A step that was taken, of which nothing else is known: the worker that knew has died."""


class Steps(Protocol):
    """Take steps; several may be in flight. `OwnSteps` has what a process that leads alone says."""

    def next_result(self, most: int | None) -> StepResult:
        """Block until a step has completed and return it.

        At most `most` steps, this one included, may be in flight meanwhile; None for no limit.
        """

    def drain(self) -> list[StepResult]:
        """Wait for the steps in flight, start no new ones, and return their results."""

    def should_stop(self) -> bool:
        """Whether the run is being stopped; every process that steps along says the same."""

    def agree(self, verdict: bool) -> bool:
        """Return the chief's verdict, to every process that steps along."""


class OwnSteps:
    """For the process that alone runs the loop: what it says goes."""

    def __init__(self, ctx: TrainContext) -> None:
        self._ctx = ctx

    def should_stop(self) -> bool:
        """Whether the run is being stopped."""
        return self._ctx.should_stop()

    def agree(self, verdict: bool) -> bool:
        """Return the verdict."""
        return verdict


@dataclass
class _Progress:
    """How far the loop is; changed by completed steps only."""

    num_feeds: int
    epochs: int | None
    step: int = 0
    rows: int = 0
    positions: dict[int, FeedPosition] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    last: Mapping[str, Any] = field(default_factory=dict)

    def add(self, result: StepResult) -> None:
        if result is LOST_RESULT:
            self.step += 1
            return
        self.ended |= result.over
        self.positions.update(result.positions)
        if result.rows:
            self.step += 1
            self.rows += result.rows
            self.last = result.metrics

    @property
    def over(self) -> bool:
        return len(self.ended) == self.num_feeds

    @property
    def epochs_done(self) -> int:
        """Epochs that every feed has finished; feeds without any more rows hold none back."""
        running = [
            self.positions.get(feed, FeedPosition()).epoch
            for feed in range(self.num_feeds)
            if feed not in self.ended
        ]
        furthest = max((p.epoch for p in self.positions.values()), default=0)
        return min(running, default=furthest)


def run_loop(
    plan: FitPlan,
    ctx: TrainContext,
    make_steps: Callable[[TrainedState, Mapping[int, FeedPosition]], Steps],
    check_resumed: Callable[[int, Mapping[int, FeedPosition]], None] = lambda step, positions: None,
) -> FitResult:
    """Train to the end of the data, of `max_steps`, or of patience; see `TrainContext.fit`.

    `check_resumed` is given the step and the positions that training goes on from.
    """
    loop = _Loop(plan, ctx)
    resumed = loop.resume()
    check_resumed(resumed, loop.progress.positions)
    if ctx.is_chief:
        ctx.link.aim(plan.read.epochs, plan.max_steps)
    if loop.steps_left != 0:
        try:
            loop.run(make_steps(loop.state, dict(loop.progress.positions)))
        except Exception:
            # To the step: an error that comes again at the same one is not answered again.
            if loop.progress.step > resumed:
                loop.report_step()
            raise
    if loop.progress.step == resumed > 0 and ctx.facts.generation == 1 and not ctx.should_stop():
        loop.evaluate_again()
    return FitResult(
        step=loop.progress.step,
        rows=loop.progress.rows,
        metrics=loop.metrics,
        resumed_from=resumed,
        stopped_early=loop.stopped_early,
    )


def checked_metrics(found: Any) -> dict[str, Any]:
    """Return what the user's step returned, for the graph it is traced into.

    Raises
    ------
    TypeError
        If it is not a mapping of names to single numbers.
    """
    import tensorflow as tf

    subject = "ctx.fit: step must return"
    if not isinstance(found, Mapping):
        raise TypeError(
            f'{subject} metrics by name, such as {{"loss": loss}}, or {{}} for none, '
            f"not {shown(found)}"
        )
    metrics: dict[str, Any] = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise TypeError(f"{subject} metrics named by str, not by {shown(name)}")
        try:
            metric = tf.convert_to_tensor(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{subject} numbers: {name!r} is {shown(value)}") from error
        numeric = metric.dtype.is_floating or metric.dtype.is_integer or metric.dtype.is_bool
        # Where the rank is known only when the step is taken, so is a wrong one.
        if not numeric or (metric.shape.rank and metric.shape.num_elements() != 1):
            raise TypeError(
                f"{subject} single numbers: {name!r} has shape {metric.shape} and dtype "
                f"{metric.dtype.name}; reduce it, as by tf.reduce_mean"
            )
        metrics[name] = tf.reshape(metric, [])
    return metrics


class _Loop:
    def __init__(self, plan: FitPlan, ctx: TrainContext) -> None:
        # Under a strategy TensorFlow traces a function for every save, and warns of it each time.
        logging.getLogger("tensorflow").addFilter(_is_not_of_saving)
        self._plan = plan
        self._ctx = ctx
        self.state = TrainedState(plan.state)
        self.progress = _Progress(ctx.facts.num_feeds, plan.read.epochs)
        self.metrics: dict[str, float] = {}
        self.stopped_early = False
        self._saved_step = -1
        self._evaluated_epoch = 0
        self._next_report = 0.0
        self._warned = False

    @property
    def steps_left(self) -> int | None:
        """Steps that may still be taken; None for any number."""
        limit = self._plan.max_steps
        return None if limit is None else max(limit - self.progress.step, 0)

    # -- the loop -----------------------------------------------------------------------------

    def run(self, steps: Steps) -> None:
        next_save = time.monotonic() + self._ctx.facts.checkpoint_every_s
        while not self.progress.over:
            if self.steps_left == 0 or steps.should_stop():
                self.stopped_early = True
                break
            self.progress.add(steps.next_result(self.steps_left))
            self._report()
            if self._evaluation_due():
                self._drain(steps)
                if steps.agree(self._evaluate_and_judge()):
                    self.stopped_early = True
                    break
            if time.monotonic() >= next_save:
                self._drain(steps)
                self._save(excused=True)
                next_save = time.monotonic() + self._ctx.facts.checkpoint_every_s
        self._drain(steps)
        self._finish()
        # Nobody reads the checkpoints before the last one of this training is there.
        steps.agree(True)

    def _drain(self, steps: Steps) -> None:
        for result in steps.drain():
            self.progress.add(result)

    def _finish(self) -> None:
        if self._plan.evaluate and self._evaluated_epoch < self.progress.epochs_done:
            self._evaluate_and_judge()
        if not self._ctx.checkpoints.flush(excused=True):
            self._saved_step = -1
        if self.progress.step > self._saved_step:
            self._save()
        self._ctx.checkpoints.flush()
        self._report(now=True)

    # -- evaluation ---------------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        done = self.progress.epochs_done
        every = self._plan.evaluate_every_epochs
        return self._plan.evaluate is not None and done // every > self._evaluated_epoch // every

    def _evaluate_and_judge(self) -> bool:
        """Evaluate; return whether the user's rule says to stop."""
        self._evaluated_epoch = self.progress.epochs_done
        found = self._evaluate()
        return self._plan.stop_when is not None and bool(self._plan.stop_when(found))

    def _evaluate(self) -> dict[str, float]:
        assert self._plan.evaluate is not None
        found = numbers_by_name("ctx.fit: evaluate must return", self._plan.evaluate())
        self.metrics.update({f"eval_{name}": value for name, value in found.items()})
        self._report(now=True)
        return found

    def evaluate_again(self) -> None:
        """Evaluate a training that was complete before this run: its data may be another."""
        if self._plan.evaluate is not None:
            self._evaluate()
        evaluated = "" if self._plan.evaluate is None else "it was evaluated again; "
        self.notify(
            f"nothing is left to train after step {self.progress.step}, from which this run "
            f"resumed: {evaluated}to train on other data use another --name, or --fresh"
        )

    def notify(self, text: str, *, warning: bool = False) -> None:
        """Publish a line for the run's log: the chief's, for the others have the same."""
        if self._ctx.is_chief:
            self._ctx.link.notify(text, warning=warning)

    def _report(self, now: bool = False) -> None:
        # Turning a metric into a number waits for the step on a device: not at every step.
        if not now and time.monotonic() < self._next_report:
            return
        self._next_report = time.monotonic() + REPORT_EVERY_S
        last = {name: float(value) for name, value in self.progress.last.items()}
        self.metrics.update(last)
        self.report_step()
        bad = [f"metric {name!r} is {v}" for name, v in last.items() if not math.isfinite(v)]
        if bad and self._plan.on_nan != "ignore":
            self._diverged(bad)

    def report_step(self) -> None:
        """Report how far the loop is, with the metrics known so far."""
        # The rows of all are told once.
        rows = self.progress.rows if self._ctx.is_chief else 0
        self._ctx.report(self.progress.step, rows=rows, **self.metrics)

    def _diverged(self, bad: list[str]) -> None:
        """Answer numbers that are none as `on_nan` says."""
        what = f"ctx.fit: {', '.join(bad[:3])} at step {self.progress.step}"
        if self._plan.on_nan == "stop":
            raise DivergedError(
                f"{what}: training has diverged; lower the learning rate, or look for such values "
                "in the data (on_nan='warn' goes on); no checkpoint was written of it",
                step=self.progress.step,
                names=bad,
            )
        if not self._warned:
            self._warned = True
            log.warning("%s; training goes on (on_nan='warn')", what)

    # -- checkpoints --------------------------------------------------------------------------

    def _save(self, excused: bool = False) -> None:
        self._report(now=True)
        if not self._ctx.is_chief:
            return
        if self._plan.on_nan == "stop" and (bad := self.state.not_finite()):
            self._diverged([f"variable {name} holds NaN or an infinity" for name in bad])
        saved = self._ctx.checkpoints.save(
            self.progress.step,
            lambda directory: self._write(directory),
            positions=self.progress.positions,
            metadata={
                "row_orders": self._ctx.facts.row_orders,
                "rows": self.progress.rows,
                "evaluated_epoch": self._evaluated_epoch,
                "read": self._plan.read.to_json(),
                "metrics": self.metrics,
            },
            excused=excused,
        )
        if saved:
            self._saved_step = self.progress.step

    def _write(self, directory: str) -> None:
        import tensorflow as tf

        self.state.checkpoint.write(
            os.path.join(directory, STATE),
            # The chief writes every shard: parameter servers may be on hosts that share no disk.
            options=tf.train.CheckpointOptions(experimental_io_device=_this_process()),
        )

    def _read(self, directory: str) -> None:
        import tensorflow as tf

        status = self.state.checkpoint.read(
            saved_variables(directory, STATE, "ctx.fit"),
            options=tf.train.CheckpointOptions(experimental_io_device=_this_process()),
        )
        # Optimizer slots are made at the first step and restored then; what exists must match.
        status.assert_existing_objects_matched()
        # Where no step is taken they are never made, which is nothing to warn of.
        status.expect_partial()

    def resume(self) -> int:
        """Restore the latest checkpoint; return its step, 0 when there is none."""
        found = self._ctx.checkpoints.restore(self._read)
        if found is None:
            return 0
        self.progress.step = self._saved_step = found.step
        self._evaluated_epoch = int(found.metadata.get("evaluated_epoch", 0))
        self.metrics.update(found.metadata.get("metrics", {}))
        self.progress.positions = self._ctx.facts.continued_positions(found)
        if self.progress.positions != found.positions:
            workers = len(found.metadata.get("row_orders", ()))
            self.notify(
                "rows come in another order than when the checkpoint was written "
                f"({workers} workers then, {self.progress.num_feeds} now): the epoch that was "
                "under way starts over",
                warning=True,
            )
        self.notify(f"resumed from step {found.step} ({found.path})")
        return found.step


def _is_not_of_saving(record: logging.LogRecord) -> bool:
    return "MultiDeviceSaver.save" not in record.getMessage()


def _this_process() -> str:
    """Return the CPU device of this process, by its name in the cluster if it is in one."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        return str(tf.constant(0).device)
