"""Run a job from the driver: data, registry, role groups, controller, and the record of it all."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tfos.base import Job
from tfos.config import JobConfig, SparkConfig
from tfos.config_files import with_options
from tfos.environment_spec import EnvironmentSpec
from tfos.environments.versions import describe_here
from tfos.errors import (
    ConfigError,
    ExitCode,
    InterruptedRunError,
    JobDefinitionError,
    RendezvousError,
    TfosError,
)
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.fault.failures.error_text import headline, text_of, user_traceback
from tfos.frameworks.contract import TRAIN, Framework, check_resumes, load_framework
from tfos.frameworks.tensorflow.keras import check_keras
from tfos.launcher.application.check import check_job
from tfos.launcher.application.job_state import pickle_job
from tfos.launcher.application.loading import UserCodeError
from tfos.launcher.application.shipped import ShippedApplication, shipped_application
from tfos.launcher.driver.controller import Controller
from tfos.launcher.driver.datasets import FedFrames, check_frames
from tfos.launcher.driver.events import Verdict
from tfos.launcher.driver.interrupts import Interrupts
from tfos.launcher.driver.role_groups import RoleGroup
from tfos.launcher.driver.run_registry import RunRegistry, only_run_of_job
from tfos.launcher.driver.state import RunState
from tfos.launcher.driver.task_slots import count_executors, count_task_slots
from tfos.launcher.driver.verdict import error_of, fields_of
from tfos.launcher.handover.failure_report import render_failures
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.registry_nodes import erase_and_close
from tfos.launcher.handover.result import RunResult, discard_record, now_iso
from tfos.launcher.platform.checks import check_supported, check_warm_start
from tfos.launcher.platform.console import log_shown
from tfos.launcher.platform.paths import resolve_paths
from tfos.launcher.platform.role_memory import JVM_MEMORY_ADVICE, jvm_ran_out_of_memory
from tfos.launcher.platform.role_tasks import is_gang, slots_needed
from tfos.launcher.platform.spark_security import unprotected
from tfos.launcher.platform.spark_stop import explain_stop, stopped_by_others, stopped_here
from tfos.launcher.role.host import RoleHost
from tfos.machine_faults import check_umask, current_directory, explained_machine_faults
from tfos.master import Master
from tfos.topology import TaskKey, describe_counts, describe_keys

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from typing_extensions import Unpack

    from tfos.option_names import RunOptions

__all__ = ["run", "run_job"]

log = logging.getLogger("tfos")


def run(
    job: Job,
    spark: SparkSession,
    config: JobConfig | None = None,
    **options: Unpack[RunOptions],
) -> RunResult:
    """Run a job on a Spark session, from a notebook or any driver program.

    Blocks until the run has ended; nothing of it is left then: no process, port, znode or spool.
    Ctrl-C ends the run in order.

    Parameters
    ----------
    job
        The job; its ``pre_train`` runs here, its ``train`` in the training processes.
    spark
        A running session. It keeps running.
    config
        The configuration; the defaults of `JobConfig` when None. Its ``spark`` section was for
        starting the session and is not looked at. Relative paths in it start from the current
        directory. With ``result_json`` the record is written there, however the run ends.
    **options
        Options of ``pl_submit`` by name, which win over `config`: ``arch="ps", num_workers=8,
        checkpoint_dir="ckpt", params={"dim": 16}``; see `tfos.option_names.RunOptions`.

    Returns
    -------
    RunResult
        Metrics, steps, rows, and where checkpoints and the model are.

    Raises
    ------
    TfosError
        If the run did not finish: `WorkerFailedError`, `ConfigError`, `RunTimeoutError` and so
        on; its ``result`` attribute is the `RunResult`.

    Examples
    --------
    >>> spark = SparkSession.builder.master("local[4]").getOrCreate()
    >>> result = tfos.run(CountJob(), spark, arch="ps", num_ps=1, num_workers=2)
    >>> result.metrics["loss"]
    0.4127

    A run that failed is an error that holds its record:

    >>> try:
    ...     tfos.run(CountJob(), spark)
    ... except tfos.TfosError as error:
    ...     print(error.result.failures[0].traceback)
    """
    return run_job(job, spark, with_options(config, options, caller="tfos.run"))


def run_job(
    job: Job,
    spark: SparkSession,
    config: JobConfig,
    *,
    interrupts: Interrupts | None = None,
    note_registry: Callable[[RegistryAddress], None] = lambda _: None,
    started_over: Callable[[], None] = lambda: None,
) -> RunResult:
    """Run a job as `run` does, for the program that is the driver.

    Parameters
    ----------
    job, spark, config
        As for `run`.
    interrupts
        Signal handling of the calling program; None leaves signals alone.
    note_registry
        Called, before any is made, with where the run's nodes will be in an external ZooKeeper, so
        that somebody can remove them should this process be killed.
    started_over
        Called once ``--fresh`` has removed the checkpoints there were.
    """
    check_umask()
    given = resolve_paths(config, current_directory())
    return _Run(job, spark, given, interrupts, note_registry, started_over).run()


@dataclass
class _Run:
    job: Job
    spark: SparkSession
    config: JobConfig
    interrupts: Interrupts | None
    note_registry: Callable[[RegistryAddress], None]
    started_over: Callable[[], None]
    started: str = field(default_factory=now_iso)
    phases: dict[str, float] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    controller: Controller | None = None
    lost: str | None = None
    registry: RunRegistry | None = None
    store: CheckpointStore | None = None
    passed_over: tuple[str, ...] = ()

    def run(self) -> RunResult:
        self.phases["started"] = time.time()
        name = self.config.name or type(self.job).__name__
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.known = {"job": name, "run_id": run_id}
        if self.config.result_json is not None:
            discard_record(self.config.result_json)
        try:
            with (
                explained_machine_faults(),
                log_shown(self.config.log_level),
                self._own_interpreter(),
                self._shutting_down(),
            ):
                self._run(name, run_id)
        except TfosError as error:
            self._attach_result(error)
            raise
        except KeyboardInterrupt:
            interrupted = InterruptedRunError("interrupted by SIGINT", signal_name="SIGINT")
            self._attach_result(interrupted)
            raise interrupted from None
        return self._reported(RunResult(outcome="done", exit_code=0, **self._fields()))

    def _attach_result(self, error: TfosError) -> None:
        result = self._reported(RunResult.from_error(error, **self._fields()))
        error.result = result
        report = render_failures(result.failures, result.incidents)
        if report:
            _add_note(error, report)

    def _reported(self, result: RunResult) -> RunResult:
        """Write what is asked for of the record: the report of failures, the record itself."""
        result = self._with_report(result)
        if self.config.result_json is not None:
            try:
                result.write(self.config.result_json)
            except ConfigError as error:
                # The run has ended as it has: its caller has the record in any case.
                log.warning("%s", error)
        return result

    def _with_report(self, result: RunResult) -> RunResult:
        """Keep what failed beside the checkpoints, where anything did and there are any."""
        if self.store is None or not (result.failures or result.incidents):
            return result
        try:
            report = result.to_json()
            told = (
                "job",
                "run_id",
                "outcome",
                "error",
                "started",
                "ended",
                "failures",
                "incidents",
            )
            path = self.store.write_report(
                self.known["run_id"], {name: report[name] for name in told}
            )
        except TfosError as error:
            log.warning("the report of failures is not kept: %s", error)
            return result
        return replace(result, report=path)

    def _fields(self) -> dict[str, Any]:
        return {**self.known, "started": self.started, "ended": now_iso(), "phases": self.phases}

    def _run(self, name: str, run_id: str) -> None:
        config = self.config
        check_job(self.job)
        actual = self._actual_spark()
        check_supported(config.model_copy(update={"spark": actual}))
        if warning := unprotected(self._master, actual.conf):
            log.warning("%s", warning)
        cpus = int(self.spark.sparkContext.getConf().get("spark.task.cpus", "1") or 1)
        self._master.with_room(slots_needed(config), cpus_per_task=cpus)
        framework = load_framework(config.arch)
        framework.check_installed()
        check_keras(framework, config.keras)
        self._prepare_checkpoints(name, framework)
        with ExitStack() as stack:
            stack.enter_context(only_run_of_job(config.registry, name, run_id, self._on_lost))
            if self.store is not None:
                # Runs with a ZooKeeper each of their own do not see each other there.
                stack.enter_context(self.store.lease(run_id, self._on_lost))
                if config.checkpoints.fresh:
                    # Not before: another run of the job may be training on them.
                    self.store.remove_all()
                    self.started_over()
                else:
                    judged = self.store.judge()
                    self.passed_over = judged.passed_over
                    if judged.latest is not None:
                        check_resumes(framework, judged.latest)
            self.registry = RunRegistry(
                config.registry, name, run_id, self._driver_host(), self.note_registry
            )
            stack.enter_context(self.registry.serving())
            application = stack.enter_context(shipped_application(self.job, self.spark))
            with self._noticing_stop():
                fed = self._prepare(self._pre_train(), framework)
            self._train(framework, fed, application, self.registry.address(), name, run_id)

    @contextmanager
    def _own_interpreter(self) -> Iterator[None]:
        """Have executors on this machine run this interpreter, where nothing names another.

        A session that was made without PYSPARK_PYTHON takes the ``python3`` of the PATH, which in
        an environment that is not activated lacks what this one has.
        """
        context = self.spark.sparkContext
        if not self._master.is_local or "PYSPARK_PYTHON" in os.environ:
            yield
            return
        before, context.pythonExec = context.pythonExec, sys.executable
        try:
            yield
        finally:
            context.pythonExec = before

    @property
    def _master(self) -> Master:
        return Master(str(self.spark.sparkContext.master))

    @property
    def _program(self) -> str:
        """The file of the job's module; empty for a notebook."""
        module = sys.modules.get(type(self.job).__module__)
        return getattr(module, "__file__", None) or ""

    def _actual_spark(self) -> SparkConfig:
        # What started the session is done with; what it runs on is what must fit the roles.
        settings = dict(self.spark.sparkContext.getConf().getAll())
        done_with: dict[str, Any] = {
            "env": EnvironmentSpec("none"),
            "queue": None,
            "priority": None,
            "tags": [],
            "encrypt": False,
        }
        done_with |= {"principal": None, "keytab": None}
        return self.config.spark.model_copy(
            update={**done_with, "master": self._master, "conf": settings}
        )

    def _prepare_checkpoints(self, name: str, framework: Framework) -> None:
        checkpoints = self.config.checkpoints
        check_warm_start(checkpoints.warm_start, framework)
        if checkpoints.dir is None:
            if checkpoints.fresh:
                raise ConfigError("--fresh removes checkpoints: it needs --checkpoint-dir")
            return
        store = CheckpointStore(checkpoints.dir, name, keep=checkpoints.keep)
        store.check_writable()
        source = (checkpoints.warm_start or "").rstrip("/")
        if checkpoints.fresh and f"{source}/".startswith(f"{store.location}/"):
            raise ConfigError(
                f"--fresh would remove the checkpoints that --warm-start {source} begins from: "
                "use another --name"
            )
        self.store = store

    def _on_lost(self, why: str) -> None:
        self.lost = why
        self._give_up(why)

    def _give_up(self, why: str) -> None:
        if self.controller is not None:
            self.controller.give_up(why)

    def _driver_host(self) -> str:
        """Return the address at which executors reach this driver."""
        if self._master.is_local:
            return "127.0.0.1"
        return self.spark.sparkContext.getConf().get("spark.driver.host") or "127.0.0.1"

    # -- the user's driver code ----------------------------------------------------------------

    def _pre_train(self) -> Any:
        self.job.params = dict(self.config.params)
        self.job.args = list(self.config.args)
        self.phases["pre_train"] = time.time()
        try:
            returned = self.job.pre_train(self.spark)
        except (TfosError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if jvm_ran_out_of_memory(text_of(error)):
                raise TfosError(
                    f"a JVM of Spark ran out of memory in pre_train: {JVM_MEMORY_ADVICE}",
                    exit_code=ExitCode.RESOURCES,
                ) from error
            raise UserCodeError(
                f"pre_train raised {headline(error)}",
                user_traceback=user_traceback(error),
            ) from error
        if stopped_here(self.spark):
            raise JobDefinitionError(
                f"{type(self.job).__name__}.pre_train stopped the Spark session that it was given: "
                "training runs on it; leave out spark.stop(), tfos stops it at the end"
            )
        return returned

    def _prepare(self, returned: Any, framework: Framework) -> FedFrames:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        try:
            frames = check_frames(returned, type(self.job).__name__)
            return FedFrames.prepare(frames, framework, framework.roles(self.config.roles))
        except (PySparkException, Py4JError) as error:
            # Spark plans a query when it is asked about it, not when the query is written.
            raise UserCodeError(
                f"Spark refuses the DataFrame that pre_train returned: {headline(error)}",
                user_traceback=user_traceback(error),
            ) from error

    @contextmanager
    def _noticing_stop(self) -> Iterator[None]:
        """Tell that Spark was stopped, not of the error that the user's code met by that."""
        try:
            yield
        except Exception as error:
            own = isinstance(error, TfosError) and not isinstance(error, UserCodeError)
            if own or not stopped_by_others(self.spark):
                raise
            raise explain_stop(self.spark) from error

    @contextmanager
    def _shutting_down(self) -> Iterator[None]:
        try:
            yield
        finally:
            if "pre_train" in self.phases:
                try:
                    self.job.shutdown()
                except Exception:
                    # Never hides what went before.
                    log.exception("%s.shutdown raised on the driver", type(self.job).__name__)

    # -- training ------------------------------------------------------------------------------

    def _train(
        self,
        framework: Framework,
        fed: FedFrames,
        application: ShippedApplication | None,
        address: RegistryAddress,
        name: str,
        run_id: str,
    ) -> None:
        config = self.config
        roles = framework.roles(config.roles)
        trainers = tuple(key for spec in roles if spec.trains for key in spec.keys)
        template = RoleHost(
            config=config.model_dump_json(),
            job_name=name,
            run_id=run_id,
            registry=address,
            role=roles[0].role,
            trains=True,
            trainers=trainers,
            fed=tuple(
                key
                for spec in roles
                if TRAIN in framework.feeds(spec.role, fed.names)
                for key in spec.keys
            ),
            repeatable=fed.repeatable,
            job=pickle_job(self.job, config.keras),
            schemas=fed.schemas,
            feeds=(),
            packed=False,
            application=application,
            program=self._program,
            passed_over=self.passed_over,
            versions=describe_here(load_framework(self.config.arch).packages),
        )
        groups = [
            RoleGroup(
                self.spark,
                spec,
                replace(
                    template,
                    role=spec.role,
                    trains=spec.trains,
                    feeds=framework.feeds(spec.role, fed.names),
                    packed=spec.gang,
                ),
                fed.frames.get(spec.role),
                slots_within_s=config.registry.register_timeout_s,
                on_stopped=self._give_up,
            )
            for spec in roles
        ]
        log.info(
            "run %s of %s: arch %s, %s",
            run_id,
            name,
            config.arch,
            describe_counts({spec.role: spec.count for spec in roles}),
        )
        state = self._control(framework, groups, template.registry)
        told = fields_of(state, trainers[0])
        self.phases.update(told.pop("phases"))
        self.known.update(told)
        error = error_of(state, config.supervision.timeout_s)
        if error is not None:
            refusals = [group.refusal for group in groups if group.refusal is not None]
            raise refusals[0] if refusals and state.verdict is Verdict.FAILED else error

    def _control(
        self, framework: Framework, groups: Sequence[RoleGroup], address: RegistryAddress
    ) -> RunState:
        try:
            registry = address.connect(create=True)
        except RendezvousError as error:
            raise error if self.registry is None else self.registry.explained(error) from error
        timeout_s = self.config.supervision.timeout_s
        interrupts = self.interrupts
        spent = time.time() - self.phases["started"] if interrupts is None else interrupts.spent_s
        try:
            registry.attend()
            self.controller = controller = Controller(
                self.config,
                registry,
                groups,
                deadline=None if timeout_s is None else time.monotonic() + timeout_s - spent,
                explain_missing=self._explain_missing,
                open_store=lambda: framework.open_store(self._driver_host()),
                server_pid=None if self.registry is None else self.registry.server_pid,
            )
            if self.lost is not None:
                controller.give_up(self.lost)
            if self.interrupts is not None:
                self.interrupts.sink = controller.interrupt
            try:
                return controller.run()
            finally:
                if self.interrupts is not None:
                    self.interrupts.sink = None
                self.phases.update(controller.phases)
                self.known["incidents"] = controller.incidents
                for group in groups:
                    group.join(1.0)
        finally:
            erase_and_close(registry)

    def _explain_missing(self, missing: frozenset[TaskKey]) -> str:
        if not is_gang(self.config) and self._master.in_containers:
            # Of executors each role has its own sort; slots are counted for one sort alone.
            has = f"{count_executors(self.spark)} executors"
        else:
            has = f"{count_task_slots(self.spark)} task slots"
        return (
            f"Spark has {has} now and the run needs {slots_needed(self.config)}: "
            f"{describe_keys(missing)} found none, or could not reach ZooKeeper; add executors, "
            "free the cluster, or raise registry.register_timeout_s"
        )


def _add_note(error: TfosError, text: str) -> None:
    """Have a traceback of the error end with `text`: what failed was in another process."""
    add = getattr(error, "add_note", None)
    if add is None:  # Python 3.10
        error.args = (f"{error.message}\n{text}",)
    else:
        add(text)
