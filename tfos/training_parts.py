"""Say what a `TrainContext` is joined from: facts, feed, checkpoints, link, runtime.

Other rooms provide these; none of them needs to know the others, nor TensorFlow to be described.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tfos.read_plan import FeedPosition, ReadPlan, continued_positions
from tfos.topology import ClusterSpec, Endpoint, TaskKey

if TYPE_CHECKING:
    from tfos.base import TrainContext

__all__ = [
    "CheckpointInfo",
    "Checkpoints",
    "Feed",
    "FitPlan",
    "FitResult",
    "HostLink",
    "Metrics",
    "OnNan",
    "ProcessFacts",
    "Runtime",
]

Metrics = Mapping[str, float]
"""Numbers by name."""

OnNan = Literal["stop", "warn", "ignore"]
"""What `TrainContext.fit` does about a metric that is NaN or infinite."""


@dataclass(frozen=True)
class ProcessFacts:
    """What a training process knows of itself and of its cluster.

    Parameters
    ----------
    job_name, run_id
        The job, and this submission of it.
    generation
        Incarnation of the cluster, from 1.
    key
        The role this process plays.
    cluster
        Every role's endpoint.
    trainers
        The roles that run ``Job.train``.
    row_orders
        Of each process that the ``train`` DataFrame is dealt to, by feed index, what tells the
        order of its rows from another; kept with data positions.
    store
        Where the processes of this generation find each other (`ring`), or None.
    params, args
        The job's parameters and arguments.
    checkpoint_every_s
        Seconds between checkpoints of the common loop.
    model_dir
        Where `TrainContext.export` publishes; None for nowhere.
    warm_start
        Directory or URL of what training begins from where the job has no checkpoint; None for
        initial values.
    source
        Digest of the application's Python files; empty where there are none.
    """

    job_name: str
    run_id: str
    generation: int
    key: TaskKey
    cluster: ClusterSpec
    trainers: tuple[TaskKey, ...]
    row_orders: tuple[int, ...]
    store: Endpoint | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    checkpoint_every_s: float = 60.0
    model_dir: str | None = None
    warm_start: str | None = None
    source: str = ""

    @property
    def num_feeds(self) -> int:
        """How many processes the ``train`` DataFrame is dealt to."""
        return len(self.row_orders)

    def continued_positions(self, found: CheckpointInfo) -> dict[int, FeedPosition]:
        """Return where each feed goes on after a checkpoint; see `read_plan.continued_positions`.

        `Checkpoints.save` keeps `row_orders` in the metadata, by that name.
        """
        before = found.metadata.get("row_orders", ())
        return continued_positions(found.positions, before, self.row_orders)


class CheckpointInfo(Protocol):
    """A complete checkpoint: how far training had come, and where its files are."""

    @property
    def step(self) -> int:
        """Completed steps."""

    @property
    def path(self) -> str:
        """Directory or URL of the files."""

    @property
    def positions(self) -> Mapping[int, FeedPosition]:
        """Position of each feed, by feed index."""

    @property
    def files(self) -> Collection[str]:
        """Its files, by path relative to `path`."""

    @property
    def made_by(self) -> Mapping[str, str]:
        """Architecture and versions of its writer, as text by name; empty where unknown."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the writer added."""


class Checkpoints(Protocol):
    """Where training state is kept: complete or absent, never in between."""

    def save(
        self,
        step: int,
        write: Callable[[str], None],
        *,
        positions: Mapping[int, FeedPosition] | None = None,
        metadata: Mapping[str, Any] | None = None,
        excused: bool = False,
    ) -> bool:
        """Keep what `write` puts into the empty local directory it is given.

        Blocks while `write` runs; the checkpoint becomes complete in the background. One is under
        way at a time: the next save first waits for it, for at most 30 minutes. Does nothing when
        the run keeps no checkpoints. The end of ``train`` waits for the last one.

        Parameters
        ----------
        step
            How far training is.
        write
            Fills the directory.
        positions
            How far each feed's rows are used in it: feed index -> position. By default, where one
            process alone is fed: up to the last batch of `train` before the one in use.
        metadata
            Anything else to keep, JSON values only.
        excused
            For one of many saves, where going on without it is better than going back: a failure is
            told by a warning. The third in a row is raised all the same, for storage that stays
            away is no place to train on.

        Returns
        -------
        bool
            False for a failure that was excused.

        Raises
        ------
        CheckpointError
            If it cannot be written, or the save before it could not; what was complete before
            stays complete.
        """

    def flush(self, *, excused: bool = False) -> bool:
        """Block until the last save is complete, for at most 30 minutes. Idempotent.

        Returns
        -------
        bool
            False for a failure that was excused, as by `save`.

        Raises
        ------
        CheckpointError
            If it could not be written, or is not complete by then. An error is raised once: here
            or by the next `save`.
        """

    def latest(self) -> CheckpointInfo | None:
        """Return the latest complete checkpoint; None when there is none, or none are kept."""

    def restore(self, read: Callable[[str], None]) -> CheckpointInfo | None:
        """Give `read` a local directory with the latest complete checkpoint's files.

        Returns the checkpoint, or None when there is none (`read` is not called then).
        Damaged checkpoints are passed over, with a warning that names them.
        """

    def read_from(self, source: str, read: Callable[[str], None]) -> None:
        """Give `read` the local prefix of the variables that another job saved, or a SavedModel's.

        They stay on this host until ``train`` has ended.

        Parameters
        ----------
        source
            Directory or URL of a job's checkpoints (the newest is taken), of one checkpoint, or of
            a SavedModel.
        read
            Called with the prefix, as `tf.train.load_checkpoint` takes it.

        Raises
        ------
        ConfigError
            If there is nothing of the kind.
        CheckpointError
            If it cannot be read.
        """


class Feed(Protocol):
    """The fed DataFrames, as a training process reads them."""

    @property
    def continue_at(self) -> FeedPosition | None:
        """Up to where a process that this one replaces used its rows of ``train``, or None."""

    def progress(self) -> tuple[FeedPosition | None, bool]:
        """Say up to where ``train`` has surely been used here, and whether any was handed out."""

    def dataset(self, plan: ReadPlan, mapped: Callable[[Any], Any] | None = None) -> Any:
        """Return a ``tf.data.Dataset`` of dict columns; see `TrainContext.dataset`."""

    def tracked_dataset(
        self,
        plan: ReadPlan,
        starts: Mapping[int, FeedPosition],
        mapped: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return a ``tf.data.Dataset`` of (columns, status) that never ends; for the common loop.

        status is int64[4]: feed index, epoch, row, rows of the batch; 0 rows: this feed is over.
        `starts` maps feed index to where that feed continues.
        """

    def batches(self, plan: ReadPlan) -> Iterator[dict[str, Any]]:
        """Return NumPy batches; see `TrainContext.batches`."""

    def count(self, name: str) -> int:
        """Return the rows of this process's part; blocks until Spark has sent them all."""

    def count_there(self, name: str) -> Any:
        """Return a TensorFlow op that does the same for the part of the process that runs it."""


class HostLink(Protocol):
    """The training process's line to its role host."""

    def notify(self, text: str, *, warning: bool = False) -> None:
        """Publish one line for the run's log, where the user sees it within seconds."""

    def report(self, step: int, rows: int, metrics: Metrics) -> None:
        """Send progress; never blocks for longer than a moment and may drop a report."""

    def aim(self, epochs: int | None, max_steps: int | None) -> None:
        """Publish what ends the training, for those who watch it; None for no such end."""

    def should_stop(self) -> bool:
        """Whether the run is being stopped."""

    def running_workers(self) -> frozenset[TaskKey]:
        """Return the workers that have not ended yet, as last heard."""

    def read_positions(self) -> Mapping[int, FeedPosition]:
        """Return how far each worker has used its rows of ``train``, by feed index, as last heard.

        It may lag by a second or two and never leads; workers that have used none are left out.

        Raises
        ------
        InfrastructureError
            If the role host does not answer in time.
        """


@dataclass(frozen=True)
class FitPlan:
    """Everything `TrainContext.fit` was asked for; see there."""

    step: Callable[[Any], Any]
    read: ReadPlan
    state: Mapping[str, Any]
    evaluate: Callable[[], Metrics] | None
    evaluate_every_epochs: int
    max_steps: int | None
    stop_when: Callable[[Metrics], bool] | None
    on_nan: OnNan = "stop"
    map: Callable[[Any], Any] | None = None
    warm_start: str | None = None


@dataclass(frozen=True)
class FitResult:
    """How the common loop ended.

    Parameters
    ----------
    step
        Steps completed since the job first started, resumed ones included.
    rows
        Rows trained on by this run.
    metrics
        The last training metrics, and the last evaluation's under ``eval_`` names.
    resumed_from
        The step this run continued from, 0 when it started from nothing.
    stopped_early
        Whether `stop_when`, `max_steps` or a stop of the run ended it before the data did.
    """

    step: int
    rows: int
    metrics: Metrics
    resumed_from: int
    stopped_early: bool


class Runtime(Protocol):
    """What an architecture offers to ``train``."""

    @property
    def strategy(self) -> Any:
        """The tf.distribute strategy, or None."""

    @property
    def coordinator(self) -> Any:
        """The ClusterCoordinator (`ps`), or None."""

    @property
    def server(self) -> Any:
        """The ``tf.compat.v1.train.Server`` (`session`), or None."""

    @property
    def hvd(self) -> Any:
        """Horovod's module, initialised (`ring`), or None."""

    def gather(self, values: Any) -> Any:
        """Return what every rank that steps along gives, float64 [ranks, ...], by rank.

        Where nobody steps along, this process's own alone. Blocks until every rank calls it.
        """

    def steps_per_epoch(self, feed: Feed, name: str, batch_size: int) -> int:
        """Return how many batches make an epoch; see `TrainContext.steps_per_epoch`."""

    def keras_dataset(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what Keras's ``fit`` takes for the dataset that `make` builds."""

    def keras_callbacks(self, ctx: TrainContext, on_nan: OnNan) -> list[Any]:
        """Return the callbacks that Keras's ``fit`` needs here."""

    @property
    def not_fed_hint(self) -> str:
        """How the rows are used that other processes are fed with; empty where there are none."""

    def scope(self) -> AbstractContextManager[Any]:
        """Context in which variables are created."""

    def fit(self, plan: FitPlan, ctx: TrainContext) -> FitResult:
        """Run the common loop."""

    def exporter(
        self, model: Any, signatures: Any, options: Mapping[str, Any]
    ) -> Callable[[str], None]:
        """Return what writes a model into an empty local directory; see `TrainContext.export`."""

    def monitored_session(self, ctx: TrainContext, hooks: Sequence[Any]) -> Any:
        """Open a session that keeps checkpoints; see `TrainContext.monitored_session`."""

    def session_config(self) -> Any:
        """Return the ConfigProto for a session on `server`."""

    def device_setter(self) -> Any:
        """Return the device function that places variables on parameter servers."""
