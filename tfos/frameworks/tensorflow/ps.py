"""The `ps` architecture: ParameterServerStrategy; a chief schedules steps onto worker servers.

Each worker reads its own spool: the dataset function is traced on the chief, but its source op
calls back into the process that runs it, which is the worker (see `tfos.arrow_feed.dataset`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from tfos.base import TrainContext
from tfos.errors import ConfigError
from tfos.frameworks.contract import TRAIN, check_not_empty
from tfos.frameworks.tensorflow.base import TensorFlowRuntime
from tfos.frameworks.tensorflow.parameter_served import ParameterServed, reach_directly
from tfos.frameworks.tensorflow.resumed_state import unsaved_slots
from tfos.frameworks.tensorflow.trained_state import TrainedState, refuse_keras_3
from tfos.frameworks.tensorflow.training_loop import (
    LOST_RESULT,
    OwnSteps,
    StepResult,
    checked_metrics,
    run_loop,
)
from tfos.read_plan import FeedPosition
from tfos.topology import Role
from tfos.training_parts import Feed, FitPlan, FitResult, HostLink, ProcessFacts

__all__ = ["ParameterServerFramework"]

log = logging.getLogger(__name__)

IN_FLIGHT_PER_WORKER = 4
"""Steps scheduled ahead: enough that no worker waits for the chief to fetch a result."""

MIN_SHARD_BYTES = 256 << 10
"""Variables smaller than this stay whole: TensorFlow's advice for its MinSizePartitioner."""


class ParameterServerFramework(ParameterServed):
    """The chief alone runs ``train``; workers and parameter servers serve it."""

    name = "ps"
    summary = (
        "The chief runs train and schedules steps on --num-workers workers; --num-ps parameter "
        "servers hold the variables (ParameterServerStrategy). For large sparse models."
    )
    keras = (2,)
    workers_train = False

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[_CoordinatorRuntime]:
        """Connect to every server and build the strategy; blocks until all of them answer."""
        yield _CoordinatorRuntime(facts)


class _CoordinatorRuntime(TensorFlowRuntime):
    not_fed_hint = (
        "the workers are: train with ctx.fit, or with model.fit(ctx.keras_dataset(...)), or call "
        "ctx.dataset in the function that ctx.coordinator.create_per_worker_dataset takes"
    )

    def __init__(self, facts: ProcessFacts) -> None:
        import tensorflow as tf

        reach_directly(endpoint.host for endpoint in facts.cluster.endpoints.values())
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(facts.cluster.by_role),
            task_type=facts.key.role.value,
            task_id=facts.key.index,
            rpc_layer="grpc",
        )
        num_ps = len(facts.cluster.keys(Role.PS))
        self.strategy = tf.distribute.ParameterServerStrategy(
            resolver,
            variable_partitioner=tf.distribute.experimental.partitioners.MinSizePartitioner(
                min_shard_bytes=MIN_SHARD_BYTES, max_shards=num_ps
            ),
        )
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self._num_workers = len(facts.cluster.keys(Role.WORKER))

    def scope(self) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def steps_per_epoch(self, feed: Feed, name: str, batch_size: int) -> int:
        """Return the batches of all workers together, who count their own rows."""
        if name != TRAIN:
            return super().steps_per_epoch(feed, name, batch_size)
        import tensorflow as tf

        def count() -> Any:
            counts = []
            for worker in range(self._num_workers):
                with tf.device(f"/job:{Role.WORKER.value}/replica:0/task:{worker}/device:CPU:0"):
                    counts.append(feed.count_there(name))
            return tf.stack(counts)

        counts = tf.function(count, autograph=False)().numpy()
        check_not_empty(name, counts, "worker")
        return int(np.ceil(counts / batch_size).sum())

    def keras_dataset(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a DatasetCreator: every worker reads its own rows."""
        if name != TRAIN:
            raise ConfigError(
                f"ctx.keras_dataset: under --arch ps the workers are fed {TRAIN!r} alone, not "
                f"{name!r}: evaluate on the chief, in a loop over ctx.dataset({name!r})"
            )
        import tensorflow as tf

        return tf.keras.utils.experimental.DatasetCreator(lambda _: make())

    def fit(self, plan: FitPlan, ctx: TrainContext) -> FitResult:
        refuse_keras_3(plan.state, "ps")
        for variable in TrainedState(plan.state).trained_variables():
            if "/job:ps" not in variable.device:
                raise ValueError(
                    f"ctx.fit: {variable.name.removesuffix(':0')} in state is not on a parameter "
                    "server: create it within `with ctx.scope():`"
                )
        return run_loop(
            plan,
            ctx,
            lambda plan, state, starts: _ScheduledSteps(
                plan, ctx, state, starts, self.strategy, self.coordinator, self._num_workers
            ),
        )


class _ScheduledSteps(OwnSteps):
    """Keep a few steps scheduled for every worker; complete them in the order scheduled."""

    def __init__(
        self,
        plan: FitPlan,
        ctx: TrainContext,
        state: TrainedState,
        starts: Mapping[int, FeedPosition],
        strategy: Any,
        coordinator: Any,
        num_workers: int,
    ) -> None:
        super().__init__(ctx)
        self._coordinator = coordinator
        self._width = IN_FLIGHT_PER_WORKER * num_workers
        self._in_flight: deque[Any] = deque()
        self._lost = 0
        self._metric_names: tuple[str, ...] = ()
        dataset = coordinator.create_per_worker_dataset(
            lambda: ctx.feed.tracked_dataset(plan.read, starts, plan.map)
        )
        self._step = self._traced(plan, ctx, strategy, state, dataset.element_spec[0])
        self._batches = iter(dataset)

    def _traced(
        self, plan: FitPlan, ctx: TrainContext, strategy: Any, state: TrainedState, columns: Any
    ) -> Any:
        import tensorflow as tf

        check = tf.autograph.experimental.do_not_convert(checked_metrics)

        # TensorFlow gathers the gradients of what `run` is given, but not of a tf.function in it.
        step = getattr(plan.step, "python_function", plan.step)

        def take(columns: Any) -> Any:
            metrics = check(strategy.run(step, args=(columns,)))
            self._metric_names = tuple(metrics)
            values = [tf.cast(value, tf.float32) for value in metrics.values()]
            return tf.stack(values) if values else tf.zeros([0])

        traced = tf.function(take)
        # Here, not on a worker: what is wrong with the step is an error of this process, and what
        # metrics it has is known before they are needed.
        with _tracing_here():
            concrete = traced.get_concrete_function(columns)
        state.check_step(concrete)
        _check_reachable(concrete)
        if unsaved := unsaved_slots(plan.state):
            ctx.link.notify(
                f"no checkpoint will hold {unsaved}: an optimizer of tf.compat.v1 saves nothing of "
                "a sharded variable; take it from tf_keras.optimizers",
                warning=True,
            )

        def worker_step(batches: Any) -> Any:
            columns, status = next(batches)
            # A feed that is over goes on giving empty batches; a step on one would be wrong.
            metrics = tf.cond(
                status[3] > 0,
                lambda: traced(columns),
                lambda: tf.zeros([len(self._metric_names)]),
            )
            return status, metrics

        return tf.function(worker_step)

    def next_result(self, most: int | None) -> StepResult:
        width = self._width if most is None else min(self._width, most)
        while len(self._in_flight) < width:
            self._in_flight.append(self._coordinator.schedule(self._step, args=(self._batches,)))
        return self._complete(self._in_flight.popleft())

    def drain(self) -> list[StepResult]:
        results = [self._complete(remote) for remote in self._in_flight]
        self._in_flight.clear()
        return results

    def _complete(self, remote: Any) -> StepResult:
        """Fetch a step's result, which may be lost with the worker that took the step.

        The coordinator takes a step again that a dead worker had not completed; a completed one's
        result stays there until it is fetched. A lost parameter server is told by `schedule`.
        """
        import tensorflow as tf

        try:
            status, values = remote.fetch()
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            self._lost += 1
            if self._lost > 2 * self._width:
                raise
            log.warning("the result of a step was lost with its worker: %s", type(error).__name__)
            return LOST_RESULT
        self._lost = 0
        feed, epoch, row, rows = (int(v) for v in status)
        metrics = dict(zip(self._metric_names, values, strict=True))
        return StepResult.of_batch(feed, FeedPosition(epoch, row), rows, metrics)


@contextmanager
def _tracing_here() -> Iterator[None]:
    """Silence TensorFlow's warning that what is traced here, for the workers, might run here.

    Raises
    ------
    ValueError
        In place of what TensorFlow says of a step that this strategy cannot run; says what can.
    """
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_not_of_tracing)
    try:
        yield
    except (ValueError, RuntimeError) as error:
        for words, way in _WAYS.items():
            if words in str(error):
                raise ValueError(f"ctx.fit: {way}") from error
        raise
    finally:
        logger.removeFilter(_is_not_of_tracing)


_WAYS = {
    "Reduction.SUM": "under --arch ps a loss object in the step needs reduction='none': take "
    "tf.reduce_mean of what it returns, or use the function, such as tf_keras.losses.mse",
    "tf.distribute.Strategy.scope()": "a variable that the step changes was created outside of "
    "`with ctx.scope():`",
    "merge_call": "under --arch ps apply gradients in the step itself, not in a tf.function, a "
    "branch or a loop within it",
}
"""What TensorFlow says under this strategy -> the way that works."""


def _check_reachable(concrete: Any) -> None:
    """Refuse a step that needs more than parameter servers have, which no worker could run."""
    import tensorflow as tf

    captured = {id(inner): outer for outer, inner in concrete.graph.captures}
    for tensor in concrete.graph.inputs:
        if tensor.dtype != tf.resource:
            continue
        outer = captured.get(id(tensor))
        # What has a copy on every worker (a table made in the scope) is captured when it is called,
        # which a branch, as the step is run in, does not hand on.
        if outer is None or "/job:ps" not in outer.device:
            raise ValueError(
                "ctx.fit: the step uses a lookup table, or a variable that was created outside of "
                "`with ctx.scope():`, which workers of --arch ps do not reach: look up in "
                "ctx.fit(..., map=...), which runs where the rows are read"
            )


def _is_not_of_tracing(record: logging.LogRecord) -> bool:
    return "without using `ClusterCoordinator.schedule`" not in record.getMessage()
