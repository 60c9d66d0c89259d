"""Take the common loop's steps on all ranks together: one batch of each, gradients averaged.

A step costs one round of the ring: beside the gradients travel the metrics and what each rank has
to offer for the step after it, so nobody enters a step that not all enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfos.base import TrainContext
from tfos.frameworks.tensorflow.ring.alike import check_alike
from tfos.frameworks.tensorflow.ring.gradients import GradientAverager
from tfos.frameworks.tensorflow.ring.standing import Standing, next_turn
from tfos.frameworks.tensorflow.trained_state import TrainedState
from tfos.frameworks.tensorflow.training_loop import StepResult, checked_metrics
from tfos.frameworks.tensorflow.warm_start import variables_of
from tfos.read_plan import FeedPosition
from tfos.training_parts import FitPlan

__all__ = ["RingSteps"]

_ADVICE = (
    "ctx.fit averages over the ranks what an optimizer applies that is in state={...}; put it there"
)


class RingSteps:
    """The steps of one rank; every rank makes and uses one, alike."""

    def __init__(
        self,
        plan: FitPlan,
        ctx: TrainContext,
        state: TrainedState,
        starts: Mapping[int, FeedPosition],
        hvd: Any,
        averager: GradientAverager,
    ) -> None:
        import tensorflow as tf

        self._ctx = ctx
        self._hvd = hvd
        self._user_step = plan.step
        self._state = state
        self._averager = averager
        self._metric_names: tuple[str, ...] = ()
        self._batches = iter(ctx.feed.tracked_dataset(plan.read, starts, plan.map))
        self._traced = tf.function(self._step, reduce_retracing=True)
        self._over = False
        self._stopping = False
        self._checked = False
        self._columns: Any = None
        """The last batch with rows; a rank without any steps along on it, for nothing."""
        self._offer = self._read()
        self._standings = self._exchange(self._offer)
        self._lend_columns()
        self._make_variables()
        self._hvd.broadcast_variables(_in_one_order(plan.state), root_rank=0)

    # -- one step -----------------------------------------------------------------------------

    def next_result(self, most: int | None) -> StepResult:
        """Take one step with the others; blocks until all have."""
        turn = next_turn(self._standings)
        over = frozenset(standing.feed for standing in self._standings if not standing.rows)
        self._stopping = turn.stopping
        if turn.rows == 0:
            return StepResult(0, {}, {}, over)
        rank = self._hvd.rank()
        self._averager.share.assign(turn.share(rank))
        columns = self._columns
        if rank in turn.taking_part:
            self._offer = self._read()
        metrics, standings = self._traced(columns, _row_of(self._offer))
        self._standings = _standings_of(standings)
        if not self._checked:
            self._checked = True
            # The first step has left the same weights on every rank.
            check_alike(self._hvd, self._state.variables(), str(self._ctx.facts.key), _ADVICE)
        positions = {each.feed: each.position for each in turn.taking_part.values()}
        named = dict(zip(self._metric_names, metrics, strict=True))
        return StepResult(turn.rows, named, positions, over)

    def _step(self, columns: Any, offer: Any) -> Any:
        import tensorflow as tf

        self._averager.attach(self._state.tracked())
        as_it_is = tf.autograph.experimental.do_not_convert
        found = as_it_is(checked_metrics)(self._user_step(columns))
        self._metric_names = tuple(found)
        share = self._averager.share
        values = tf.stack([tf.cast(value, tf.float32) for value in found.values()] or [0.0])
        own = tf.where(share > 0, values * share, tf.zeros_like(values))
        metrics, standings = as_it_is(self._exchange_with)(own, offer)
        return metrics[: len(found)], standings

    def _exchange_with(self, metrics: Any, offer: Any) -> tuple[Any, Any]:
        total = self._hvd.allreduce(metrics, op=self._hvd.Sum, name="tfos.metrics")
        return total, self._hvd.allgather(offer, name="tfos.standings")

    def drain(self) -> list[StepResult]:
        """Return nothing: no step is ever in flight."""
        return []

    # -- what all agree on --------------------------------------------------------------------

    def should_stop(self) -> bool:
        """Whether any rank had been told to stop when it offered its last batch."""
        return self._stopping

    def agree(self, verdict: bool) -> bool:
        """Return rank 0's verdict; blocks until every rank asks."""
        return bool(self._hvd.broadcast(np.int64(verdict), 0, name="tfos.verdict").numpy())

    def _exchange(self, offer: Standing) -> tuple[Standing, ...]:
        gathered = self._hvd.allgather(_row_of(offer), name="tfos.standings.first")
        return _standings_of(gathered)

    # -- state --------------------------------------------------------------------------------

    def _make_variables(self) -> None:
        """Trace the step: what variables it makes are there before rank 0's become everybody's."""
        if self._columns is not None:
            traced = self._traced.get_concrete_function(self._columns, _row_of(self._offer))
            self._state.check_step(traced)

    # -- batches ------------------------------------------------------------------------------

    def _lend_columns(self) -> None:
        """Give a rank that is fed no row one of another's, to step along on."""
        import tensorflow as tf

        lenders = [rank for rank, each in enumerate(self._standings) if each.rows]
        if not lenders or len(lenders) == len(self._standings):
            return
        spec = self._batches.element_spec[0]
        lent: list[Any] = []
        parts: list[Any] = []
        if self._hvd.rank() == lenders[0]:
            row = tf.nest.map_structure(lambda column: column[:1], self._columns)
            lent = tf.nest.flatten(row, expand_composites=True)
        for number, part in enumerate(tf.nest.flatten(spec, expand_composites=True)):
            data = tf.io.serialize_tensor(lent[number]).numpy() if lent else b""
            told = self._hvd.allgather(np.frombuffer(data, np.uint8), name=f"tfos.lent.{number}")
            if not lent:
                parts.append(tf.io.parse_tensor(told.numpy().tobytes(), part.dtype))
        if self._columns is None:
            self._columns = tf.nest.pack_sequence_as(spec, parts, expand_composites=True)

    def _read(self) -> Standing:
        """Take the next batch of this rank's feed; blocks for rows that Spark has yet to send."""
        feed, stopping = self._ctx.facts.key.index, int(self._ctx.should_stop())
        if self._over:
            return Standing(feed, 0, 0, 0, stopping)
        columns, status = next(self._batches)
        _, epoch, row, rows = (int(value) for value in status.numpy())
        if rows == 0:
            self._over = True
        else:
            self._columns = columns
        return Standing(feed, rows, epoch, row, stopping)


def _in_one_order(state: Mapping[str, Any]) -> list[Any]:
    """Return every variable of the state, what optimizers keep for each included, by path.

    What `tf_keras.optimizers.legacy` keep is none of the objects that TensorFlow tracks for them.
    After a warm start rank 0 alone has it.
    """
    return [
        each.variable for each in sorted(variables_of(state), key=lambda each: each.described.path)
    ]


def _row_of(standing: Standing) -> Any:
    return np.array([standing], np.int64)


def _standings_of(gathered: Any) -> tuple[Standing, ...]:
    return tuple(Standing(*map(int, row)) for row in gathered.numpy())
