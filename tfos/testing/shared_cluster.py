"""One Spark session and one ZooKeeper on this machine, for many supervised runs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tfos.base import Job
from tfos.config import JobConfig
from tfos.config_files import with_options
from tfos.launcher.driver.run import run
from tfos.launcher.handover.result import RunResult
from tfos.launcher.in_process.session import local_session
from tfos.master import Master
from tfos.option_names import RunOptions
from tfos.registry.embedded import EmbeddedZooKeeper

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from typing_extensions import Unpack

__all__ = ["SharedCluster"]

_TASK_FAILURES = 4


class SharedCluster:
    """Runs jobs with `tfos.run` on a Spark session and a ZooKeeper that outlive each run.

    A context manager, for one thread. Entering it starts both, in this process and beside it;
    leaving it stops them. Role hosts are tasks of the session, training processes are real, and
    what fails is restarted as in any run.

    Parameters
    ----------
    slots
        Task slots of the session: the most roles a run may have, 1 or more.
    config
        Of it ``feed.batch_rows`` and ``spark.conf`` are used for the session; the defaults of
        `JobConfig` when None.

    Attributes
    ----------
    spark
        The session, while the cluster is entered.

    Raises
    ------
    ConfigError
        On entering, if Java or PySpark is missing.
    LaunchError
        On entering, if Spark or ZooKeeper does not start, or this process has a session already.
    """

    spark: SparkSession

    def __init__(self, slots: int = 8, config: JobConfig | None = None) -> None:
        self._master = Master(f"local[{slots},{_TASK_FAILURES}]")
        self._config = config or JobConfig()
        self._server = EmbeddedZooKeeper()
        self._stack = ExitStack()

    def __enter__(self) -> SharedCluster:
        with ExitStack() as stack:
            stack.enter_context(self._server)
            self.spark = stack.enter_context(
                local_session(self._config, self._master, "tfos.testing")
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def run(
        self, job: Job, config: JobConfig | None = None, **options: Unpack[RunOptions]
    ) -> RunResult:
        """Run a job to its end, as `tfos.run`; blocks until nothing of it is left.

        Parameters
        ----------
        job
            The job.
        config, **options
            As for `tfos.run`. ZooKeeper is the cluster's unless another is named;
            ``supervision.standby`` is off unless it is given, because a second process per role
            costs more than a restart saves.

        Raises
        ------
        TfosError
            As `tfos.run`; its ``result`` attribute is the record.
        """
        given = with_options(config, options, caller="SharedCluster.run")
        address = given.registry.zookeeper or self._server.address
        registry = given.registry.model_copy(update={"zookeeper": address})
        supervision = given.supervision
        if "standby" not in supervision.model_fields_set:
            supervision = supervision.model_copy(update={"standby": False})
        given = given.model_copy(update={"registry": registry, "supervision": supervision})
        return run(job, self.spark, given)
