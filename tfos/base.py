"""Give users what they write against: `Job`, and the `TrainContext` that `train` receives.

The context only joins parts that other rooms provide; `tfos.training_parts` says which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, get_args

from tfos.arguments import Arguments, numbers_by_name, suggests_options
from tfos.errors import NotFedError
from tfos.read_plan import FeedPosition, ReadPlan, checked_reading
from tfos.topology import TaskKey
from tfos.training_parts import (
    Checkpoints,
    Feed,
    FitPlan,
    FitResult,
    HostLink,
    Metrics,
    OnNan,
    ProcessFacts,
    Runtime,
)

if TYPE_CHECKING:
    import numpy as np
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Job", "TrainContext"]

_BEGINNING = FeedPosition()


class Job:
    """One training job. Subclass it, and override `pre_train` and `train`.

    tfos builds the object on the driver with no arguments, calls `pre_train` there, and sends its
    attributes to the training processes, which import the application's modules: what `pre_train`
    sets on ``self`` is seen in `train`. What cannot be pickled, such as the SparkSession, must not
    be kept on it.

    Attributes
    ----------
    params
        The values of ``-p KEY=VALUE`` and of the configuration's ``params``, as text.
    args
        The job arguments after ``--`` on the command line.

    Examples
    --------
    >>> class CountJob(tfos.Job):
    ...     def pre_train(self, spark):
    ...         return spark.read.parquet(self.params["data"])
    ...
    ...     def train(self, ctx):
    ...         return {"rows": sum(len(batch["item"]) for batch in ctx.batches())}

    In ``count.py`` it is submitted with ``pl_submit -p data=clicks.parquet count.py``.
    """

    params: Mapping[str, str] = {}
    args: Sequence[str] = ()

    def pre_train(self, spark: SparkSession) -> DataFrame | Mapping[str, DataFrame]:
        """Prepare the data. Runs once, on the driver.

        Returns
        -------
        DataFrame or mapping of str to DataFrame
            The rows to train on; or several DataFrames by name, of which ``"train"`` feeds
            the workers and all others feed the chief. Under `ring` each is dealt to all ranks.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define pre_train(self, spark)")

    def train(self, ctx: TrainContext) -> Any:
        """Train. Runs in a fresh training process, with TensorFlow and without Spark.

        Which processes run it is the architecture's matter: the one of `local`, the chief of
        `ps`, the chief and every worker of `session`, every rank of `ring`.

        Returns
        -------
        Any
            Anything small; the chief's becomes ``RunResult.result``, as a JSON value. Arrays,
            tensors, dataclasses such as `FitResult`, paths and dates are converted; other objects
            are kept as their repr and what takes more than 100,000 bytes of JSON is left out,
            each with a warning.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define train(self, ctx)")

    def shutdown(self) -> None:
        """Free what `pre_train` or `train` opened.

        Runs exactly once in every process that ran one of them, whatever happened. Its own error
        is logged and never hides an error of theirs.
        """


class TrainContext:
    """What ``Job.train`` needs, and nothing of Spark. Lives in the training process.

    Attributes
    ----------
    params, args
        The job's parameters (text by name) and arguments.
    job_name, run_id
        The job, and this submission of it.
    generation
        Incarnation of the training cluster, from 1.
    cluster_spec
        ``{"ps": ["host:port"], ...}``.
    checkpoints
        Where training state is kept; `fit` uses it by itself.
    background_error
        What ended the work that `monitored_session` does in the background; None while it goes on.
    """

    def __init__(
        self,
        facts: ProcessFacts,
        *,
        feed: Feed,
        checkpoints: Checkpoints,
        link: HostLink,
        runtime: Runtime,
        export_to: Callable[[Callable[[str], None], int], str | None],
    ) -> None:
        self.facts = facts
        self.feed = feed
        self.checkpoints = checkpoints
        self.link = link
        self._runtime = runtime
        self._export_to = export_to
        self.params = facts.params
        self.args = facts.args
        self.job_name = facts.job_name
        self.run_id = facts.run_id
        self.generation = facts.generation
        self.cluster_spec = facts.cluster.by_role
        self._step = 0
        self.background_error: BaseException | None = None

    # -- who am I -----------------------------------------------------------------------------

    @property
    def role(self) -> str:
        """``"chief"`` or ``"worker"``."""
        return self.facts.key.role.value

    @property
    def index(self) -> int:
        """Index within the role, from 0."""
        return self.facts.key.index

    @property
    def is_chief(self) -> bool:
        """Whether this process initialises, evaluates, checkpoints and exports."""
        return self.facts.key == self.facts.trainers[0]

    @property
    def rank(self) -> int:
        """Position among the processes that run ``train``, from 0 (the chief)."""
        return self.facts.trainers.index(self.facts.key)

    @property
    def world_size(self) -> int:
        """Number of processes that run ``train``."""
        return len(self.facts.trainers)

    @property
    def strategy(self) -> Any:
        """The tf.distribute strategy of this architecture; None where there is none."""
        return self._runtime.strategy

    @property
    def coordinator(self) -> Any:
        """The ClusterCoordinator of `ps`; None elsewhere."""
        return self._runtime.coordinator

    @property
    def server(self) -> Any:
        """The ``tf.compat.v1.train.Server`` of `session`; None elsewhere."""
        return self._runtime.server

    @property
    def hvd(self) -> Any:
        """``horovod.tensorflow``, initialised, under `ring`; None elsewhere.

        ``import horovod.tensorflow as hvd`` and ``horovod.tensorflow.keras`` in ``train`` give the
        same; neither needs ``hvd.init()``.
        """
        return self._runtime.hvd

    def reduce_sum(self, values: Any) -> np.ndarray:
        """Sum numbers over the ranks of `ring`; elsewhere return them as they are.

        What `fit` evaluates, every rank evaluates over its own part of the data: sums and counts
        added up by this give the metric over all of it. Every rank must call it, as often and in
        the same order; blocks until all have.

        Parameters
        ----------
        values
            A number or an array of them, of one shape on every rank.

        Returns
        -------
        numpy.ndarray
            float64, of that shape.
        """
        import numpy as np

        try:
            numbers = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            what = "a number or an array of numbers"
            raise Arguments("ctx.reduce_sum").wrong_type("values", values, what) from error
        total: np.ndarray = self._runtime.gather(numbers).sum(axis=0)
        return total

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which to create variables, the same line under every architecture.

        Under `ps` it is the strategy's scope, which spreads variables over the parameter servers.
        """
        return self._runtime.scope()

    # -- data ---------------------------------------------------------------------------------

    @suggests_options("ctx.dataset")
    def dataset(
        self,
        name: str = "train",
        *,
        batch_size: int = 1024,
        epochs: int | None = 1,
        shuffle_rows: int = 0,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        stack: Mapping[str, Sequence[str]] | None = None,
        drop_remainder: bool = False,
        start: FeedPosition = _BEGINNING,
        map: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return a fed DataFrame as a ``tf.data.Dataset`` of ``{column: tensor}`` batches.

        Each iteration over it is a new reading. It blocks while Spark computes the next rows,
        for at most ``feed.wait_timeout_s`` (10 minutes unless configured).

        Parameters
        ----------
        name
            The key in the mapping `Job.pre_train` returned, ``"train"`` for a single DataFrame.
        batch_size
            Rows per batch, 1 or more. The last batch of an epoch is shorter unless
            `drop_remainder`.
        epochs
            Passes over the data, 1 or more; None for no end.
        shuffle_rows
            Rows of the shuffle window: each window of that many consecutive rows is permuted.
            0 keeps Spark's order.
        seed
            Seed of the shuffle, 0 to 2**63 - 1.
        columns
            Columns to read; None for all. Others are not copied into tensors.
        stack
            New column name -> scalar columns of one dtype, delivered as one [batch, n] tensor in
            place of the n columns: much cheaper for wide tables.
        drop_remainder
            Leave out an epoch's last short batch.
        start
            Continue after this position instead of the beginning.
        map
            A function of a ``{column: tensor}`` batch whose result takes its place. It runs in the
            process that reads the rows, under `ps` the worker: the place for lookup tables and
            preprocessing layers. None leaves batches as they are.

        Returns
        -------
        tf.data.Dataset
            Scalars as [batch], fixed-length lists and vectors as [batch, n], variable lists as
            RaggedTensor, strings and binary as tf.string.

        Raises
        ------
        SchemaMismatchError
            If a column or dataset of that name is not fed to this process.
        TypeError, ValueError
            If an argument is not what it should be; names it.

        Examples
        --------
        >>> for batch in ctx.dataset("eval", batch_size=4096):
        ...     loss = loss_of(batch["item"], batch["clicked"])
        """
        plan = _read_plan(
            "ctx.dataset",
            name=name,
            batch_size=batch_size,
            epochs=epochs,
            shuffle_rows=shuffle_rows,
            seed=seed,
            columns=columns,
            stack=stack,
            drop_remainder=drop_remainder,
            start=start,
        )
        check = Arguments("ctx.dataset")
        mapped = check.function_or_none("map", map, "a function of a batch")
        with self._saying_who_is_fed():
            return self.feed.dataset(plan, mapped)

    @suggests_options("ctx.batches")
    def batches(
        self,
        name: str = "train",
        *,
        batch_size: int = 1024,
        epochs: int | None = 1,
        shuffle_rows: int = 0,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        stack: Mapping[str, Sequence[str]] | None = None,
        drop_remainder: bool = False,
        start: FeedPosition = _BEGINNING,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Return the same batches as NumPy arrays, for feed_dict code; parameters as `dataset`.

        Variable lists come as a pair ``(values, row_splits)``; strings as object arrays of bytes.

        Examples
        --------
        >>> rows = sum(len(batch["item"]) for batch in ctx.batches(batch_size=4096))
        """
        plan = _read_plan(
            "ctx.batches",
            name=name,
            batch_size=batch_size,
            epochs=epochs,
            shuffle_rows=shuffle_rows,
            seed=seed,
            columns=columns,
            stack=stack,
            drop_remainder=drop_remainder,
            start=start,
        )
        with self._saying_who_is_fed():
            return self.feed.batches(plan)

    @suggests_options("ctx.steps_per_epoch")
    def steps_per_epoch(self, batch_size: int, name: str = "train") -> int:
        """Return how many batches make an epoch on every rank, for loops other than `fit`.

        Ranks that run a loop of their own, such as Keras's ``model.fit``, must take the same
        number of steps. It is that of the rank with most rows: read with ``epochs=None``, and a
        rank with fewer uses some of its rows again. Where processes do not step along with each
        other (any architecture but `ring`) it is of this process's own rows.

        Every rank must call it. Blocks until Spark has sent all rows, which must fit into the spool
        (``feed.memory_bytes`` and ``feed.disk_bytes``); each wait for the next takes at most
        ``feed.wait_timeout_s``.

        Parameters
        ----------
        batch_size
            Rows per batch, 1 or more.
        name
            Which fed DataFrame.

        Raises
        ------
        EmptyDataError
            If a rank has no rows at all.
        """
        arguments = Arguments("ctx.steps_per_epoch")
        batch_size = arguments.integer("batch_size", batch_size, 1)
        name = arguments.text("name", name)
        with self._saying_who_is_fed():
            return self._runtime.steps_per_epoch(self.feed, name, batch_size)

    @suggests_options("ctx.keras_dataset")
    def keras_dataset(
        self,
        name: str = "train",
        *,
        batch_size: int = 1024,
        shuffle_rows: int = 0,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        stack: Mapping[str, Sequence[str]] | None = None,
        map: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return a fed DataFrame as Keras's ``model.fit`` takes it, the same line everywhere.

        It has no end: ``model.fit(ctx.keras_dataset(batch_size=64, map=to_x_y),
        steps_per_epoch=ctx.steps_per_epoch(64), epochs=3, callbacks=ctx.keras_callbacks())``.
        Under `ps` it is a ``DatasetCreator``, by which every worker reads its own rows; elsewhere
        the endless ``tf.data.Dataset`` of this process's rows.

        Parameters
        ----------
        name, batch_size, shuffle_rows, seed, columns, stack
            As for `dataset`.
        map
            As for `dataset`: a function of a ``{column: tensor}`` batch, which here returns what
            the model takes, such as ``(inputs, labels)``.
        """
        check = Arguments("ctx.keras_dataset")
        plan = _read_plan(
            "ctx.keras_dataset",
            name=name,
            batch_size=batch_size,
            epochs=None,
            shuffle_rows=shuffle_rows,
            seed=seed,
            columns=columns,
            stack=stack,
        )
        mapped = check.function_or_none("map", map, "a function of a batch")
        return self._runtime.keras_dataset(name, lambda: self.feed.dataset(plan, mapped))

    def keras_callbacks(self, on_nan: OnNan = "stop") -> list[Any]:
        """Return the callbacks with which Keras's ``model.fit`` is part of the run.

        They report steps and metrics, end the training when the run is being stopped, and by
        `DivergedError` after an epoch whose metrics are NaN or infinite. Under `ring` they also
        make the ranks train one model: variables start as rank 0's, what the optimizer applies
        and the metrics are averaged over the ranks. Put them before your own.

        Parameters
        ----------
        on_nan
            ``"stop"``, or ``"ignore"`` to go on.
        """
        kept = Arguments("ctx.keras_callbacks").one_of("on_nan", on_nan, ("stop", "ignore"))
        return self._runtime.keras_callbacks(self, kept)

    @contextmanager
    def _saying_who_is_fed(self) -> Iterator[None]:
        try:
            yield
        except NotFedError as error:
            hint = self._runtime.not_fed_hint
            raise NotFedError(f"{error}; {hint}" if hint else str(error)) from None

    # -- training -----------------------------------------------------------------------------

    @suggests_options("ctx.fit")
    def fit(
        self,
        step: Callable[[Any], Any],
        *,
        state: Mapping[str, Any],
        data: str = "train",
        batch_size: int = 1024,
        epochs: int | None = 1,
        shuffle_rows: int = 0,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        stack: Mapping[str, Sequence[str]] | None = None,
        drop_remainder: bool = False,
        map: Callable[[Any], Any] | None = None,
        evaluate: Callable[[], Metrics] | None = None,
        evaluate_every_epochs: int = 1,
        max_steps: int | None = None,
        stop_when: Callable[[Metrics], bool] | None = None,
        on_nan: OnNan = "stop",
        warm_start: str | None = None,
    ) -> FitResult:
        """Run the common training loop; the same for `local`, `ps` and `ring`.

        It resumes from the latest checkpoint of this job, takes steps until the data or
        `max_steps` is over, keeps a checkpoint with the data position every
        ``checkpoints.every_s`` seconds and at the end, and reports metrics. Blocks until then.

        Parameters
        ----------
        step
            Takes a ``{column: tensor}`` batch, updates the variables and returns a mapping of
            metric names to scalar tensors. Traced once into a tf.function.
        state
            Models, optimizers and variables by name: what a checkpoint holds. The step must
            change a variable of it other than an optimizer's own.
        data
            Which fed DataFrame.
        batch_size, epochs, shuffle_rows, seed, columns, stack, drop_remainder, map
            As for `dataset`. At the end of its rows a process may call `map` with batches of none.
        evaluate
            Returns metrics by name; called on the chief after every `evaluate_every_epochs`
            epochs and at the end. Under `ring` every rank calls it, over its own part of the data:
            see `reduce_sum`. Rank 0's metrics count.
        max_steps
            Most steps in the job's life, resumed ones included.
        stop_when
            Given evaluation metrics, returns whether to stop early.
        on_nan
            What to do when a metric of the step is NaN or infinite: ``"stop"`` ends the run with
            a `DivergedError`, ``"warn"`` logs it once and ``"ignore"`` goes on. Metrics are looked
            at once a second, before every checkpoint and at the end. With ``"stop"`` so are the
            variables of `state` before every checkpoint: one that holds a NaN or an infinity is
            not written, so the latest checkpoint is a sound one.
        warm_start
            Directory or URL of another job's checkpoints, of one checkpoint or of a SavedModel:
            where this job has no checkpoint of its own yet, variables that fit by name and shape
            begin from there, and tables that have more rows now keep initial values in the rows
            that are new. The default is ``--warm-start``. One line of the run's log says what
            fitted, grew, was new and was dropped.

        Returns
        -------
        FitResult

        Raises
        ------
        CheckpointError
            If a checkpoint cannot be written, or none of those present can be read.
        DivergedError
            See `on_nan`.
        TypeError, ValueError
            If an argument is not what it should be, or the step changes nothing of `state`.
        ConfigError
            If the variables of `state` are not those of the checkpoint, or a warm start would lose
            rows of one.

        Examples
        --------
        >>> result = ctx.fit(
        ...     step,
        ...     batch_size=1024,
        ...     epochs=3,
        ...     shuffle_rows=100_000,
        ...     state={"weights": weights, "optimizer": optimizer},
        ... )
        >>> result.metrics["loss"]
        0.4127
        """
        check = Arguments("ctx.fit")
        plan = FitPlan(
            step=check.function("step", step, "a function of a batch"),
            read=_read_plan(
                "ctx.fit",
                name=check.text("data", data),
                batch_size=batch_size,
                epochs=epochs,
                shuffle_rows=shuffle_rows,
                seed=seed,
                columns=columns,
                stack=stack,
                drop_remainder=drop_remainder,
            ),
            state=check.mapping(
                "state", state, 'objects to keep by name, such as {"model": model}'
            ),
            evaluate=check.function_or_none(
                "evaluate", evaluate, "a function that returns metrics by name"
            ),
            evaluate_every_epochs=check.integer("evaluate_every_epochs", evaluate_every_epochs, 1),
            max_steps=check.integer_or_none("max_steps", max_steps, 1, "no limit"),
            stop_when=check.function_or_none(
                "stop_when", stop_when, "a function of the metrics that evaluate returned"
            ),
            map=check.function_or_none("map", map, "a function of a batch"),
            on_nan=check.one_of("on_nan", on_nan, get_args(OnNan)),
            warm_start=None if warm_start is None else check.text("warm_start", warm_start),
        )
        return self._runtime.fit(plan, self)

    def report(
        self,
        step: int,
        metrics: Mapping[str, float] | None = None,
        /,
        *,
        rows: int = 0,
        **named: float,
    ) -> None:
        """Tell the driver how far this process is; `fit` does so by itself.

        Parameters
        ----------
        step
            Completed steps.
        metrics
            Numbers by name; the chief's last ones become ``RunResult.metrics``.
        rows
            Rows trained on so far.
        **named
            More metrics; those of any name, such as ``rows`` or ``val/auc``, go into `metrics`.

        Raises
        ------
        TypeError
            If a metric is no number.

        Examples
        --------
        >>> ctx.report(step, loss=0.31, rows=step * 512)  # doctest: +SKIP
        """
        check = Arguments("ctx.report")
        self._step = check.integer("step", step, 0)
        given = numbers_by_name("ctx.report: metrics must be", {} if metrics is None else metrics)
        given |= numbers_by_name("ctx.report: metrics must be", named)
        self.link.report(self._step, check.integer("rows", rows, 0), given)

    def should_stop(self) -> bool:
        """Whether the run is being stopped: end the loop soon, the process is killed otherwise."""
        return self.link.should_stop()

    def export(self, model: Any, signatures: Any = None, **options: Any) -> str | None:
        """Publish a model in the model directory.

        It appears whole, by rename; on object stores file by file, ``saved_model.pb`` last.

        Parameters
        ----------
        model
            A ``tf.Module`` or a Keras model, published as a SavedModel. Under `plain`, a function
            that writes the model's files into the empty local directory it is given.
        signatures, **options
            As for ``tf.saved_model.save``.

        Returns
        -------
        str or None
            Where it is; None when the run has no model directory (``--model-dir``).

        Raises
        ------
        CheckpointError
            If it cannot be written.
        ConfigError
            If it could not be loaded again; nothing is published then.
        """
        return self._export_to(self._runtime.exporter(model, signatures, options), self._step)

    # -- between-graph programs (arch session) --------------------------------------------------

    def resume_position(self) -> FeedPosition:
        """Return where this process's part of ``train`` goes on, for a program's own loop.

        Give it as ``start`` to `batches` or `dataset`. A process that replaces one that died gets
        the row after the last that was used; every process of a new generation, or of a resubmitted
        job, the row after the last that the checkpoint covers; the beginning otherwise.

        Rows may be used again, none is lost: a worker's position is told twice a second. A
        ``tf.data.Dataset`` may hold at most 16 batches ahead (prefetch included) for this to hold.

        Raises
        ------
        CheckpointError
            If the checkpoints cannot be read.
        """
        if self.feed.continue_at is not None:
            return self.feed.continue_at
        found = self.checkpoints.latest()
        if found is None:
            return FeedPosition()
        positions = self.facts.continued_positions(found)
        return positions.get(self.facts.key.index, FeedPosition())

    def monitored_session(self, hooks: Sequence[Any] = ()) -> Any:
        """Open the MonitoredSession of the default graph (`session`); a context manager.

        Build the graph first, with a global step. The chief restores the latest checkpoint or
        initialises the variables, keeps a checkpoint with every worker's data position each
        ``checkpoints.every_s`` seconds and at the end; workers wait until it has. Every process
        reports the global step. Blocks until the session is ready.

        Parameters
        ----------
        hooks
            Further SessionRunHooks.
        """
        return self._runtime.monitored_session(self, hooks)

    def device_setter(self) -> Any:
        """Return ``replica_device_setter`` for this process (`session`)."""
        return self._runtime.device_setter()

    def session_config(self) -> Any:
        """Return a ConfigProto that sees only the PSs and this process (`session`).

        Without its device filters a session waits for every worker to be up.
        """
        return self._runtime.session_config()

    def running_workers(self) -> frozenset[TaskKey]:
        """Return the workers whose ``train`` has not ended; for the chief of `session`."""
        return self.link.running_workers()

    def await_workers(self, poll_s: float = 0.1) -> None:
        """Block until every worker's ``train`` has ended, or the run is stopped.

        A worker that fails or never ends is the driver's matter: it stops the run then, at
        ``--timeout`` at the latest, and this returns.
        """
        while self.running_workers() and not self.should_stop():
            if self.background_error is not None:
                raise self.background_error
            time.sleep(poll_s)


def _read_plan(
    method: str, *, stack: Mapping[str, Sequence[str]] | None, **reading: Any
) -> ReadPlan:
    return ReadPlan(**checked_reading(method, {**reading, "stack": {} if stack is None else stack}))
