"""Run the common training loop: resume, steps, epochs, checkpoints, evaluation, early stop.

How a step is taken (here, scheduled onto workers, or by all ranks together) is a `Steps` of the
architecture; everything else is the same for all of them and stands here once.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tfos import wire
from tfos.arguments import numbers_by_name, shown
from tfos.base import TrainContext
from tfos.errors import CheckpointCorruptError, ConfigError, DivergedError
from tfos.frameworks.contract import STATE, saved_variables
from tfos.frameworks.tensorflow.fingerprint import changes, fingerprint
from tfos.frameworks.tensorflow.resumed_state import ResumedState
from tfos.frameworks.tensorflow.state_writer import StateWriter
from tfos.frameworks.tensorflow.trained_state import TrainedState
from tfos.frameworks.tensorflow.warm_start import (
    WarmStart,
    after_tracing,
    differences,
    this_process,
)
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
    make_steps: Callable[[FitPlan, TrainedState, Mapping[int, FeedPosition]], Steps],
    check_resumed: Callable[[int, Mapping[int, FeedPosition]], None] = lambda step, positions: None,
) -> FitResult:
    """Train to the end of the data, of `max_steps`, or of patience; see `TrainContext.fit`.

    `make_steps` is given the plan to take steps by, and the positions that training goes on from;
    `check_resumed` is given the step and these positions.
    """
    loop = _Loop(plan, ctx)
    resumed = loop.resume()
    check_resumed(resumed, loop.progress.positions)
    if ctx.is_chief:
        ctx.link.aim(plan.read.epochs, plan.max_steps)
    if loop.steps_left != 0:
        with loop.explained():
            loop.run(make_steps(loop.plan, loop.state, dict(loop.progress.positions)))
    loop.end_warm_start()
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
        self._plan = plan
        self._ctx = ctx
        self.state = TrainedState(plan.state)
        self._writer = StateWriter(self.state)
        self._warm: WarmStart | None = None
        self._resumed_prefix: str | None = None
        self._resumed: ResumedState | None = None
        self.progress = _Progress(ctx.facts.num_feeds, plan.read.epochs)
        self.metrics: dict[str, float] = {}
        self.stopped_early = False
        self._warm_source = ""
        self._warm_started: dict[str, Any] | None = None
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
            self.end_warm_start()
            self._end_resume()
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
        self._ctx.report(self.progress.step, self.metrics, rows=rows)

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
            lambda directory: self._writer.write(os.path.join(directory, STATE)),
            positions=self.progress.positions,
            metadata={
                "rows": self.progress.rows,
                "evaluated_epoch": self._evaluated_epoch,
                "read": wire.to_json(self._plan.read),
                "metrics": self.metrics,
                "warm_start": self._warm_started,
                "fingerprint": fingerprint(self._ctx.facts, self._plan),
            },
            excused=excused,
        )
        if saved:
            self._saved_step = self.progress.step

    def _read(self, directory: str) -> None:
        import tensorflow as tf

        prefix = saved_variables(directory, STATE, "ctx.fit")
        resumed = ResumedState(prefix, self._plan.state)
        if resumed.has_sharded_slots:
            self._refuse_different(prefix)
            resumed.make_sharded_slots()
        try:
            status = self.state.checkpoint.read(
                prefix, options=tf.train.CheckpointOptions(experimental_io_device=this_process())
            )
            # Other optimizer slots are made at the first step and restored then; what exists must
            # match. Of sharded slots TensorFlow cannot see that they do: each time it looks, it
            # makes another object for all shards of one.
            if not resumed.has_sharded_slots:
                status.assert_existing_objects_matched()
        except (ValueError, AssertionError, tf.errors.OpError) as error:
            self._refuse_different(prefix, error)
            raise
        self._resumed_prefix = prefix
        self._resumed = resumed
        # Where no step is taken they are never made, which is nothing to warn of.
        status.expect_partial()

    def _refuse_different(
        self, prefix: str, error: Exception | None = None, *, shapes_only: bool = False
    ) -> None:
        """Refuse the checkpoint, and say in what it is not what the job has, if it is not."""
        told = differences(prefix, self._plan.state, shapes_only=shapes_only)
        if told:
            # What TensorFlow has to say of the objects that it leaves behind is no news then.
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
            name = os.path.basename(os.path.dirname(prefix))
            raise ConfigError(
                f"cannot resume from {name}: {told}; use another --name with --warm-start and the "
                "directory of this job's checkpoints, which takes what fits and lets tables grow, "
                "or --fresh to start over"
            ) from error

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Explain an error at the first step after a resume: a variable made there may differ."""
        resumed = self.progress.step
        try:
            yield
        except Exception as error:
            if self.progress.step > resumed:
                # To the step: an error that comes again at the same one is not answered again.
                self.report_step()
            elif self._resumed_prefix is not None:
                self._refuse_different(self._resumed_prefix, error, shapes_only=True)
            raise

    @property
    def plan(self) -> FitPlan:
        """What to take steps by: the user's step, and what variables made at the first one need."""
        step = self._plan.step
        if self._warm is not None:
            return replace(self._plan, step=after_tracing(step, self._warm.apply))
        if self._resumed is not None and self._resumed.has_sharded:
            return replace(self._plan, step=after_tracing(step, self._resumed.take_late))
        return self._plan

    def _start_warm(self, source: str) -> None:
        """Take what fits of another checkpoint; the other ranks of a ring get it with rank 0's."""
        if not self._ctx.is_chief:
            return

        def read(prefix: str) -> None:
            self._warm = WarmStart(prefix, self._plan.state)
            self._warm.apply()
            self._warm.check()

        self._ctx.checkpoints.read_from(source, read)
        self._warm_source = source

    def end_warm_start(self) -> None:
        """Take nothing more, and say what was taken: once a step was run, or none is left."""
        if self._warm is None:
            return
        warm, self._warm = self._warm, None
        warm.end()
        self._warm_started = {"source": self._warm_source, **warm.plan.to_json()}
        self.notify(f"warm start from {self._warm_source}: {warm.plan}")

    def _end_resume(self) -> None:
        """Warn of saved values that the job did not take, once it has run a step."""
        if self._resumed is None or self.progress.step == self._saved_step:
            return
        resumed, self._resumed = self._resumed, None
        if self._ctx.is_chief and (unused := resumed.unused()):
            self.notify(
                f"the checkpoint that this run resumed from has {unused}, which the job lacks: "
                "not restored, and left out of the next checkpoint",
                warning=True,
            )

    def resume(self) -> int:
        """Restore the latest checkpoint; return its step, 0 when there is none.

        Without one a warm start is begun, where one is asked for.
        """
        found = self._ctx.checkpoints.restore(self._read)
        source = self._plan.warm_start or self._ctx.facts.warm_start
        if found is None:
            if source is not None:
                self._start_warm(source)
            return 0
        if source is not None:
            self.notify(
                f"the warm start from {source} is left aside: this run resumes from the job's own "
                "checkpoint, which comes first"
            )
        self.progress.step = self._saved_step = found.step
        try:
            self._evaluated_epoch = int(found.metadata.get("evaluated_epoch", 0))
            metrics = dict(found.metadata.get("metrics", {}))
            self.metrics.update({str(name): float(value) for name, value in metrics.items()})
            self._warm_started = found.metadata.get("warm_start")
            self.progress.positions = self._ctx.facts.continued_positions(found)
        except (TypeError, ValueError, LookupError) as error:
            raise CheckpointCorruptError(
                f"the metadata of {found.path} is not what ctx.fit saves: {error}", path=found.path
            ) from error
        if self.progress.positions != found.positions:
            workers = len(found.metadata.get("row_orders", ()))
            self.notify(
                "rows come in another order than when the checkpoint was written "
                f"({workers} workers then, {self.progress.num_feeds} now): the epoch that was "
                "under way starts over",
                warning=True,
            )
        changed = changes(
            found.metadata.get("fingerprint"), fingerprint(self._ctx.facts, self._plan)
        )
        self.notify(
            f"resumed from step {found.step} ({found.path})" + (f", {changed}" if changed else "")
        )
        return found.step
