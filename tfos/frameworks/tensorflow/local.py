"""The `local` architecture: one process trains, fed with every DataFrame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tfos.base import TrainContext
from tfos.frameworks.contract import SingleProcess
from tfos.frameworks.tensorflow.base import TensorFlowFramework, TensorFlowRuntime
from tfos.frameworks.tensorflow.trained_state import TrainedState
from tfos.frameworks.tensorflow.training_loop import OwnSteps, StepResult, checked_metrics, run_loop
from tfos.read_plan import FeedPosition
from tfos.training_parts import FitPlan, FitResult, HostLink, ProcessFacts

__all__ = ["LocalFramework"]


class LocalFramework(SingleProcess, TensorFlowFramework):
    """One chief."""

    name = "local"
    summary = "One process runs train with TensorFlow. For debugging and small data."

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[_LocalRuntime]:
        """Need nothing."""
        yield _LocalRuntime()


class _LocalRuntime(TensorFlowRuntime):
    def fit(self, plan: FitPlan, ctx: TrainContext) -> FitResult:
        return run_loop(plan, ctx, lambda plan, *rest: _EagerSteps(plan, ctx, *rest))


class _EagerSteps(OwnSteps):
    """Take each step here and now: nothing is ever in flight."""

    def __init__(
        self,
        plan: FitPlan,
        ctx: TrainContext,
        state: TrainedState,
        starts: Mapping[int, FeedPosition],
    ) -> None:
        super().__init__(ctx)
        import tensorflow as tf

        dataset = ctx.feed.tracked_dataset(plan.read, starts, plan.map)
        self._batches = iter(dataset)
        self._state = state
        self._checked = False
        check = tf.autograph.experimental.do_not_convert(checked_metrics)
        self._step: Any = tf.function(
            lambda columns: check(plan.step(columns)), reduce_retracing=True
        )

    def next_result(self, most: int | None) -> StepResult:
        columns, status = next(self._batches)
        feed, epoch, row, rows = (int(v) for v in status.numpy())
        if rows and not self._checked:
            # The trace that the first step then uses.
            self._state.check_step(self._step.get_concrete_function(columns))
            self._checked = True
        metrics = self._step(columns) if rows else {}
        return StepResult.of_batch(feed, FeedPosition(epoch, row), rows, metrics)

    def drain(self) -> list[StepResult]:
        return []
