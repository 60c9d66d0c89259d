"""The in-process run: a job trains in the calling process, for a debugger and for unit tests.

The spool, the reader, ``tf.data``, the context, the runtime of ``local`` and the checkpoint store
are those of a supervised run. There is no Spark executor, no ZooKeeper and no training process, so
nothing is supervised or restarted, and an exception of the job reaches the caller as it is.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from tfos.arrow_feed.in_memory import MemoryTable, memory_table
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.spool import SpoolWriter
from tfos.base import Job
from tfos.config import FeedConfig, JobConfig
from tfos.errors import CheckpointError, ConfigError, EmptyDataError
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.frameworks.contract import TRAIN, Framework, check_resumes, load_framework
from tfos.frameworks.tensorflow.keras import KERAS_VARIABLE, check_keras, keras_variables
from tfos.launcher.application.job_state import pickle_job
from tfos.launcher.driver.progress import ProgressLine
from tfos.launcher.handover.messages import Artifact, FromProcess
from tfos.launcher.handover.result import RunResult, now_iso
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.launcher.platform.checks import check_warm_start
from tfos.launcher.platform.paths import resolve_paths
from tfos.launcher.training.feed import TrainingFeed
from tfos.launcher.training.host_link import TrainingLink
from tfos.launcher.training.main import shut_down, train
from tfos.launcher.training.quiet_import import import_quietly
from tfos.progress import Aim, Progress, RoleProgress
from tfos.read_plan import FeedPosition
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey
from tfos.training_parts import Metrics, ProcessFacts

__all__ = ["prepare_process", "train_in_process"]

log = logging.getLogger("tfos")

_ARCH = "local"
"""In place of an architecture of several processes."""
_KEY = TaskKey(Role.CHIEF, 0)
# Nobody listens there: a cluster of one process has no connections.
_ENDPOINT = Endpoint("127.0.0.1", 1)
_KERAS_3 = "keras._tf_keras.keras"
"""The module that ``tf.keras`` is where it is Keras 3."""


def prepare_process(config: JobConfig) -> None:
    """Set in this process what the environment of a training process has.

    What is set already stays, but for the Keras of ``config.keras``. Call it before the
    application is imported.

    Raises
    ------
    ConfigError
        If ``tf.keras`` is the other Keras in this process by now.
    """
    framework = _framework(config)
    check_keras(framework, config.keras)
    other = 5 - config.keras
    if _settled_keras() == other:
        value = keras_variables(config.keras)[KERAS_VARIABLE]
        raise ConfigError(
            f"tf.keras is Keras {other} in this process, and the job is to have Keras "
            f"{config.keras}: set {KERAS_VARIABLE}={value} before TensorFlow is first used (in "
            f"conftest.py, for tests), or run with JobConfig(keras={other}) (--keras {other})"
        )
    os.environ.update(keras_variables(config.keras))
    for name, value in framework.environment(_KEY, config.roles.chief).items():
        os.environ.setdefault(name, value)


def _framework(config: JobConfig) -> Framework:
    framework = load_framework(config.arch)
    roles = [(spec.role, spec.count) for spec in framework.roles(config.roles)]
    return framework if roles == [(Role.CHIEF, 1)] else load_framework(_ARCH)


def _settled_keras() -> int | None:
    """Return which Keras ``tf.keras`` is in this process; None while nobody has used it."""
    keras = vars(sys.modules.get("tensorflow", sys)).get("keras")
    # Until then a loader is in its place, of a type of TensorFlow's.
    if type(keras) is not ModuleType:
        return None
    return 3 if keras.__name__ == _KERAS_3 else 2


def train_in_process(job: Job, load: Callable[[], Any], config: JobConfig) -> RunResult:
    """Load the data and train, in the calling process and thread.

    As under the job's architecture where that is one process, else as under ``local``. Blocks
    until ``train`` has returned and its last checkpoint is complete. ``Job.shutdown`` is called
    once, whatever happened.

    Parameters
    ----------
    job
        The job.
    load
        Returns the data: what `memory_table` takes, or a mapping of dataset names to such, one of
        them named ``train``. Called once `job` has its parameters.
    config
        Of it ``name``, ``params``, ``args``, ``model_dir``, ``feed`` and ``checkpoints`` are used;
        relative paths are taken from the current directory.

    Returns
    -------
    RunResult
        Its ``outcome`` is "done": any other end is an exception.

    Raises
    ------
    JobDefinitionError
        If the Job cannot be pickled, as it is for a supervised run.
    EmptyDataError
        If there are no rows to train on.
    AlreadyRunningError
        If another run trains on the job's checkpoints.
    ConfigError, FeedError, CheckpointError
        As in a supervised run.
    BaseException
        Whatever `load` and ``train`` raise.
    """
    config = resolve_paths(config, os.getcwd())
    started, name = now_iso(), config.name or type(job).__name__
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    framework = _framework(config)
    config = config.model_copy(update={"arch": framework.name})
    check_warm_start(config.checkpoints.warm_start, framework)
    prepare_process(config)
    import_quietly(lambda: framework.import_libraries(_KEY.role))
    job.params, job.args = dict(config.params), list(config.args)
    link = _NoHost()
    with (
        _checkpoints(config, name, run_id, link) as passed_over,
        TemporaryDirectory(prefix="tfos-", dir=config.feed.spool_dir) as directory,
    ):
        try:
            datasets = _datasets(load())
            pickle_job(job, config.keras)
            spool, rows = _spool(datasets, config.feed, Path(directory))
            spec = _spec(config, name, run_id, datasets, spool, passed_over)
            feed = TrainingFeed.open(spec, link)
            framework.take_feed(feed.service)
            result = train(framework, job, spec, feed, link)
        finally:
            shut_down(job)
    if link.lost is not None:
        raise CheckpointError(link.lost)
    return RunResult(
        outcome="done",
        exit_code=0,
        job=name,
        run_id=run_id,
        metrics=link.reported.metrics,
        result=result,
        steps=link.reported.step,
        rows=rows,
        started=started,
        ended=now_iso(),
        **link.artifacts,
    )


@contextmanager
def _checkpoints(
    config: JobConfig, name: str, run_id: str, link: _NoHost
) -> Iterator[tuple[str, ...]]:
    """Hold the right to train on the job's checkpoints; gives the names of those to pass over."""
    if config.checkpoints.dir is None:
        yield ()
        return
    store = CheckpointStore(config.checkpoints.dir, name, keep=config.checkpoints.keep)
    store.check_writable()
    with store.lease(run_id, link.stop):
        if config.checkpoints.fresh:
            store.remove_all()
            yield ()
        else:
            judged = store.judge()
            if judged.latest is not None:
                check_resumes(load_framework(config.arch), judged.latest)
            yield judged.passed_over


def _datasets(loaded: Any) -> dict[str, MemoryTable]:
    given = loaded if isinstance(loaded, Mapping) else {TRAIN: loaded}
    if TRAIN not in given:
        raise ConfigError(f"datasets are named {sorted(given)}: one of them must be {TRAIN!r}")
    datasets = {name: memory_table(name, data) for name, data in given.items()}
    if not datasets[TRAIN].table.num_rows:
        raise EmptyDataError("the data to train on has no rows")
    return datasets


def _spool(
    datasets: Mapping[str, MemoryTable], feed: FeedConfig, directory: Path
) -> tuple[Path, dict[str, int]]:
    """Write the data into a spool; return where it is, and the rows of each dataset."""
    # The data is in memory already: it need not be bounded a second time.
    place = Place(directory / "spool", sys.maxsize)
    with SpoolWriter([place], {n: data.schema for n, data in datasets.items()}, feed) as spool:
        for name, data in datasets.items():
            for batch in data.table.to_batches(max_chunksize=feed.batch_rows):
                spool.write(batch, name)
    return spool.directory, spool.rows


def _spec(
    config: JobConfig,
    name: str,
    run_id: str,
    datasets: Mapping[str, MemoryTable],
    spool: Path,
    passed_over: tuple[str, ...],
) -> TrainingSpec:
    order = 0 if all(data.repeatable for data in datasets.values()) else secrets.randbits(53)
    return TrainingSpec(
        facts=ProcessFacts(
            job_name=name,
            run_id=run_id,
            generation=1,
            key=_KEY,
            cluster=ClusterSpec({_KEY: _ENDPOINT}),
            trainers=(_KEY,),
            row_orders=(order,),
            params=config.params,
            args=config.args,
            checkpoint_every_s=config.checkpoints.every_s,
            model_dir=config.model_dir,
            warm_start=config.checkpoints.warm_start,
        ),
        arch=config.arch,
        trains=True,
        job_file="",
        application=None,
        program="",
        schemas={dataset: data.schema for dataset, data in datasets.items()},
        spool=str(spool),
        feed_index=0,
        continue_at=None,
        checkpoint_url=config.checkpoints.dir,
        checkpoint_keep=config.checkpoints.keep,
        passed_over=passed_over,
        wait_timeout_s=config.feed.wait_timeout_s,
        log_level=config.log_level,
    )


class _NoHost(TrainingLink):
    """The line of a process without a role host: keeps what the run's record holds."""

    def __init__(self) -> None:
        self.reported = Progress(step=0)
        self.artifacts: dict[str, Any] = {}
        self.lost: str | None = None
        self._aim: Aim | None = None
        self._line = ProgressLine()

    def send(self, message: FromProcess) -> None:
        if isinstance(message, Artifact):
            self.artifacts[message.name] = message.path

    def aim(self, epochs: int | None, max_steps: int | None) -> None:
        self._aim = Aim(epochs, max_steps)

    def report(self, step: int, rows: int, metrics: Metrics) -> None:
        self.reported = Progress(step, rows, dict(metrics))
        self._line.show(self)

    def progress(self) -> dict[TaskKey, RoleProgress]:
        return {_KEY: RoleProgress(self.reported, aim=self._aim)}

    def notify(self, text: str, *, warning: bool = False) -> None:
        log.log(logging.WARNING if warning else logging.INFO, "%s", text)

    def stop(self, why: str) -> None:
        """Have training end soon: another run may train on its checkpoints."""
        self.lost = why

    def should_stop(self) -> bool:
        return self.lost is not None

    def running_workers(self) -> frozenset[TaskKey]:
        return frozenset()

    def read_positions(self) -> dict[int, FeedPosition]:
        return {}
