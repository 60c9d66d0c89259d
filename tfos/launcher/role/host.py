"""Be a role host: the Spark task that plays one role of the training cluster.

It reserves a port, registers, fills the spool from its Arrow batches, supervises the training
process and reports how it ended. TensorFlow is never imported here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tfos import wire
from tfos.arrow_feed.places import Place, choose_places, host_directory
from tfos.config import JobConfig
from tfos.environments.versions import describe_here, differences
from tfos.errors import ConfigError, InfrastructureError, RendezvousClosedError, TfosError
from tfos.fault.drills.drills import HostDrill, drill_of
from tfos.fault.failures.error_text import headline, text_of
from tfos.fault.failures.record import Cause, Failure, Outcome, cause_of, container_logs
from tfos.fault.processes.janitor import removed_at_end
from tfos.files.private import make_private, private_name
from tfos.frameworks.contract import load_framework
from tfos.launcher.application.shipped import ShippedApplication, UnpackedApplication
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.launcher.platform.hadoop_conf import configuration_in_container
from tfos.launcher.platform.role_tasks import role_resources
from tfos.launcher.role.membership import REJOIN_WITHIN_S, HostSession
from tfos.launcher.role.ports import address_towards, reserve_port
from tfos.launcher.role.supervision import Supervision
from tfos.machine_faults import machine_fault
from tfos.read_plan import FeedPosition
from tfos.registry.contract import Generation, Member
from tfos.terminal import TerminalFormatter
from tfos.topology import Endpoint, Life, Role, TaskKey

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import TaskContext

    from tfos.arrow_feed.schema import FeedSchema
    from tfos.arrow_feed.spool import SpoolWriter

__all__ = ["SUBMISSION_PROPERTY", "RoleHost", "RoleTask", "first_attempt"]

log = logging.getLogger("tfos")

SUBMISSION_PROPERTY = "tfos.submission"
"""Spark's local property that tells a role host how often its group had been submitted before."""
_ATTEMPTS_A_SUBMISSION = 1000

SPARK_TELLS_WITHIN_S = 10.0
"""How long a host whose rows ended early leaves it to Spark to tell the driver why."""


def first_attempt(submission: int) -> int:
    """Return the attempt number of a submission's first role hosts, counted from submission 0.

    It is higher than that of every attempt before, for which Spark itself counts from 0 again.
    """
    return submission * _ATTEMPTS_A_SUBMISSION


@dataclass(frozen=True)
class RoleHost:
    """The executor program of one role group; called once a task with the task's Arrow batches.

    Parameters
    ----------
    config
        The run's `JobConfig`, as JSON text.
    job_name, run_id
        The job and this submission of it.
    registry
        Where to register.
    role
        The role of every task of this group; the partition index is the role's index.
    trains
        Whether its training processes run ``Job.train``.
    trainers
        Every role that does.
    fed
        The roles that the ``train`` DataFrame is dealt to, by feed index.
    repeatable
        Whether Spark, asked again, gives each of them the same rows in the same order.
    job
        The pickled Job; handed on unopened.
    schemas
        The schema of every fed DataFrame, by name, as JSON.
    feeds
        The DataFrames fed to this role; tagged by row when there are several.
    packed
        Whether its batches come packed, as a gang's do (`tfos.arrow_feed.gang`).
    application
        The files of the application; None when the Job needs none.
    program
        Its file as the user named it; empty in a notebook.
    passed_over
        Names of checkpoints that cannot be used; the driver has warned of them.
    versions
        What the driver has (`tfos.environments.versions.describe_here`).
    """

    config: str
    job_name: str
    run_id: str
    registry: RegistryAddress
    role: Role
    trains: bool
    trainers: tuple[TaskKey, ...]
    fed: tuple[TaskKey, ...]
    repeatable: bool
    job: bytes = field(repr=False)
    schemas: Mapping[str, FeedSchema]
    feeds: tuple[str, ...]
    packed: bool
    application: ShippedApplication | None
    program: str
    passed_over: tuple[str, ...]
    versions: Mapping[str, str | None]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Play the role to its end; yields one row with the outcome as JSON.

        Blocks for as long as the run lasts. Never raises for a failure of the role: failures are
        returned as records, because Spark flattens exceptions to text.
        """
        import pyarrow as pa
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        key = TaskKey(self.role, context.partitionId())
        config = JobConfig.model_validate_json(self.config)
        _log_to_stderr(key, config.log_level)
        # For itself and for the training process, whose working directory is another.
        os.environ.update(configuration_in_container(os.environ, os.getcwd()))
        outcome = RoleTask(self, config, key, context).play(batches)
        yield pa.RecordBatch.from_pydict({"outcome": [wire.to_text(outcome)]})


class RoleTask:
    """One task attempt of a role.

    Parameters
    ----------
    program
        What every task of the role has in common.
    config
        The run's configuration.
    key
        The role.
    context
        Spark's own of this task.
    """

    def __init__(
        self, program: RoleHost, config: JobConfig, key: TaskKey, context: TaskContext
    ) -> None:
        self._task = context.taskAttemptId()
        self._gpus = _gpus_of(context, config, key.role)
        self._program = program
        self._config = config
        self._key = key
        self._attempt = _attempt_of(context)
        self._ended = threading.Event()
        self._supervision: Supervision | None = None
        self._spool: SpoolWriter | None = None
        self._job_file = Path()
        self._application: UnpackedApplication | None = None

    def play(self, batches: Iterator[pa.RecordBatch]) -> Outcome:
        """Play the role to its end, as `RoleHost` says; return how it ended."""
        try:
            with contextlib.ExitStack() as stack:
                return self._play(batches, stack)
        except Exception as error:
            if self._supervision is None:
                # The registry was not reached: a failed task is the only way left to tell.
                raise
            log.debug("the role host of %s failed", self._key, exc_info=True)
            self._fail(error)
            return self._supervision.outcome()

    def _play(self, batches: Iterator[pa.RecordBatch], stack: contextlib.ExitStack) -> Outcome:
        program = self._program
        name = private_name(f"{program.run_id}-{self._key}-{self._attempt}")
        directory = host_directory(f"{name}-host")
        places = choose_places(self._config.feed, name)
        # Spark kills Python workers without a word: this tidies up whatever becomes of us.
        stack.enter_context(removed_at_end([directory, *(place.path for place in places)]))
        make_private(directory, instead="set TMPDIR on its host to one of root's or your own")
        address = address_towards(program.registry.first)
        endpoint = stack.enter_context(reserve_port(address))
        session = HostSession(
            program.registry.connect,
            self._member(endpoint),
            patience_s=REJOIN_WITHIN_S,
        )
        stack.callback(session.close)
        # A host that takes a lost one's place is spared: a drill's fault happens once.
        faults = self._config.supervision.inject if self._attempt == 0 else []
        drill = HostDrill(drill_of(faults, self._key), session.expire, directory)
        self._supervision = supervision = Supervision(
            self._config,
            self._key,
            session,
            directory,
            self._make_spec,
            drill,
            self._gpus,
            self._rows,
        )
        try:
            self._check_versions()
            self._open_spool(places, stack)
            self._write_application(directory)
        except Exception as error:
            self._fail(error)
            supervision.tell_failure()
            return supervision.outcome()
        # The training process dies with the thread that starts it, so that thread lives as long
        # as it; this one is the only one that may read from Spark, and does so meanwhile.
        thread = threading.Thread(target=self._supervise, name="tfos-supervise")
        thread.start()
        try:
            self._pump(batches)
        finally:
            thread.join()
        return supervision.outcome()

    def _check_versions(self) -> None:
        """Refuse to train with what does not fit the driver's; raises ConfigError."""
        packages = load_framework(self._config.arch).packages
        told = differences(self._program.versions, describe_here(packages))
        if told:
            raise ConfigError(
                "; ".join(told) + " (--env gives containers an environment of their own)"
            )

    # -- the training process ------------------------------------------------------------------

    def _supervise(self) -> None:
        assert self._supervision is not None
        try:
            self._supervision.run()
        except RendezvousClosedError as closed:
            log.info("the run has ended: %s", closed)
        except Exception as error:
            self._fail(error)
        finally:
            self._ended.set()
            self._supervision.tell_failure()

    def _write_application(self, directory: Path) -> None:
        if self._program.application is not None:
            self._application = self._program.application.unpack(directory / "application")
        self._job_file = directory / "job.pkl"
        with open(os.open(self._job_file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(self._program.job)

    def _make_spec(
        self, life: Life, generation: Generation, read: FeedPosition | None
    ) -> TrainingSpec:
        from tfos.training_parts import ProcessFacts

        program, config = self._program, self._config
        return TrainingSpec(
            facts=ProcessFacts(
                job_name=program.job_name,
                run_id=program.run_id,
                generation=life.generation,
                key=self._key,
                cluster=generation.cluster,
                trainers=load_framework(config.arch).ranks(program.trainers, generation.cluster),
                row_orders=tuple(generation.row_orders[key] for key in program.fed),
                store=generation.store,
                params=config.params,
                args=config.args,
                checkpoint_every_s=config.checkpoints.every_s,
                model_dir=config.model_dir,
                warm_start=config.checkpoints.warm_start,
                source="" if self._application is None else self._application.source_digest(),
            ),
            arch=config.arch,
            trains=program.trains,
            job_file=str(self._job_file),
            application=self._application,
            program=program.program,
            schemas=program.schemas,
            spool=None if self._spool is None else str(self._spool.directory),
            feed_index=self._key.index,
            continue_at=read,
            checkpoint_url=config.checkpoints.dir,
            checkpoint_keep=config.checkpoints.keep,
            passed_over=program.passed_over,
            wait_timeout_s=config.feed.wait_timeout_s,
            log_level=config.log_level,
        )

    # -- the feed ------------------------------------------------------------------------------

    def _open_spool(self, places: Sequence[Place], stack: contextlib.ExitStack) -> None:
        if not self._program.feeds:
            return
        from tfos.arrow_feed.spool import SpoolWriter

        schemas = {n: self._program.schemas[n] for n in self._program.feeds}
        self._spool = SpoolWriter(places, schemas, self._config.feed, cancelled=self._ended.is_set)
        stack.callback(self._spool.remove)

    def _pump(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Move Spark's batches into the spool, until they or the training end."""
        spool, supervision = self._spool, self._supervision
        assert supervision is not None
        if spool is None:
            self._ended.wait()
            return
        from tfos.arrow_feed.gang import unpack_batches
        from tfos.arrow_feed.tags import split_by_tag, tag_order

        feeds = self._program.feeds
        batches = _from_spark(batches)
        if self._program.packed:
            batches = unpack_batches(batches)
        tags = tag_order(feeds) if len(feeds) > 1 else None
        supervision.mark("feed_started")
        try:
            for batch in batches:
                for name, rows in split_by_tag(batch, tags) if tags else [(feeds[0], batch)]:
                    spool.write(rows, name)
                if self._ended.is_set():
                    return
            spool.finish()
            supervision.mark("feed_ended")
        except _InputEndedError as ended:
            # By an error of the user's query, or because the task is killed: Spark tells the driver
            # which, and whatever this host said of it would only hide that.
            if not self._ended.wait(SPARK_TELLS_WITHIN_S):
                spool.abort(ended)
                self._fail(
                    InfrastructureError(f"Spark stopped sending rows to {self._key}: {ended}")
                )
        except Exception as error:
            spool.abort(error)
            self._fail(error)
        self._ended.wait()

    def _fail(self, error: Exception) -> None:
        assert self._supervision is not None
        self._supervision.fail(self._failure(error))

    def _rows(self) -> dict[str, int]:
        return {} if self._spool is None else dict(self._spool.rows)

    # -- records -------------------------------------------------------------------------------

    def _member(self, endpoint: Endpoint) -> Member:
        return Member(
            key=self._key,
            endpoint=endpoint,
            host=socket.gethostname(),
            pid=os.getpid(),
            attempt=self._attempt,
            executor=os.environ.get("CONTAINER_ID", ""),
            logs=container_logs(os.environ),
            task=self._task,
            row_order=0 if self._program.repeatable else secrets.randbits(53),
        )

    def _failure(self, error: Exception) -> Failure:
        error = machine_fault(error) or error
        expected = isinstance(error, TfosError)
        return Failure(
            key=str(self._key),
            cause=cause_of(error) if isinstance(error, TfosError) else Cause.INFRASTRUCTURE,
            message=f"{type(error).__name__}: {' '.join(text_of(error).split())}",
            time=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            # What tfos foresaw says all in its message; a defect is found by its traceback.
            traceback="" if expected else "".join(traceback.format_exception(error)),
            logs=container_logs(os.environ),
        )


class _InputEndedError(Exception):
    """Spark ended a task's rows before their end."""


def _from_spark(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return the batches; tells errors that Spark sends in their place from one's own."""
    try:
        yield from batches
    except Exception as error:
        raise _InputEndedError(headline(error)) from error


def _gpus_of(context: TaskContext, config: JobConfig, role: Role) -> dict[str, str]:
    """Return the variable by which TensorFlow sees the GPUs that Spark dealt to this task.

    A role that asked for none is left to its defaults: executors all alike may hold some for it.
    """
    _, resources = role_resources(config)[role]
    if resources.gpus == 0:
        return {}
    dealt = context.resources().get("gpu")
    if dealt is None:
        raise ConfigError(
            f"{role}s are to have GPUs, and Spark dealt out none: "
            "spark.executor.resource.gpu.amount and spark.task.resource.gpu.amount say how many"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(dealt.addresses)}


def _attempt_of(context: TaskContext) -> int:
    """Return a number above that of every attempt of the same task before, resubmitted or rerun."""
    submission = int(context.getLocalProperty(SUBMISSION_PROPERTY) or 0)
    return first_attempt(submission) + context.attemptNumber()


def _log_to_stderr(key: TaskKey, level: str) -> None:
    """Send this host's own log to the executor's stderr, once a Python worker and role.

    Spark reuses Python workers: what an earlier task set up is replaced, not added to.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalFormatter(f"[{key}] %(levelname).1s %(message)s"))
    log.handlers = [handler]
    log.setLevel(level.upper())
    log.propagate = False
