"""The driver program: load the application, run it, write the record."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tfos.account import has_entry, user_name
from tfos.config import JobConfig
from tfos.errors import ConfigError, ExitCode, InfrastructureError, InterruptedRunError, TfosError
from tfos.fault.processes.identity import ProcessIdentity, Proof
from tfos.frameworks.tensorflow.keras import keras_variables
from tfos.launcher.application.loading import UserCodeError, load_job
from tfos.launcher.driver.interrupts import Interrupts
from tfos.launcher.driver.run import run_job
from tfos.launcher.handover.failure_report import render_failures
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.registry_nodes import erase_run
from tfos.launcher.handover.result import RunResult
from tfos.launcher.handover.run_directory import RunDirectory, application_of_container
from tfos.launcher.handover.submission import Submission
from tfos.launcher.platform.console import show_log
from tfos.launcher.platform.hadoop_conf import configuration_in_container
from tfos.launcher.platform.spark_refusal import explain_refusal
from tfos.launcher.platform.yarn_client import YarnClient
from tfos.launcher.platform.yarn_wait import YarnWait
from tfos.machine_faults import explained_machine_faults
from tfos.master import Master
from tfos.terminal import printable_lines

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("tfos")

CLIENT_POLL_S = 1.0
STOP_POLL_S = 2.0
SPARK_SEES_S = 3.0


def main(argv: list[str]) -> int:
    """Run the submission file named on the command line; return the exit code."""
    submission = Submission.read(argv[1])
    _write_pid(submission.pid_file)
    config = submission.config
    show_log(config.log_level)
    os.environ.update(keras_variables(config.keras))
    # An application that imports TensorFlow here, too, is not to bury its own output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.update(configuration_in_container(os.environ, os.getcwd()))
    if submission.runs_root is not None:
        return _main_in_cluster(submission, config, submission.runs_root)
    result = _run(
        submission,
        config,
        _watch_client,
        note_registry=lambda address: address.note(submission.registry_file),
    )
    code = result.exit_code
    try:
        result.write(submission.result_file)
    except ConfigError as error:
        log.error("the run ended %s, but %s", result.outcome, error)
        code = int(error.exit_code)
    if not _client_lives(submission):
        # Its own end would have removed this; nobody else does.
        shutil.rmtree(Path(submission.pid_file).parent, ignore_errors=True)
    return code


def _main_in_cluster(submission: Submission, config: JobConfig, runs_root: str) -> int:
    """Run in a container of YARN, which may start this anew when it fails."""
    application, attempt = application_of_container(os.environ["CONTAINER_ID"])
    directory = RunDirectory(runs_root, application)
    left: RegistryAddress | None = None
    if attempt > 1:
        before: RunResult | None = None
        with _warned():
            before = directory.read()
        if before is not None:
            # It was the run that failed, not its container: the same would come of it again.
            return before.exit_code
        log.warning("attempt %d of %s: going on where the one before was", attempt, application)
        with _warned():
            left = directory.registry()
        if config.checkpoints.fresh and directory.was_fresh():
            checkpoints = config.checkpoints.model_copy(update={"fresh": False})
            config = config.model_copy(update={"checkpoints": checkpoints})
    result = _run(
        submission,
        config,
        lambda _: _watch_stop(directory),
        note_registry=lambda address: _note_registry(directory, left, address),
        started_over=directory.note_fresh,
    )
    try:
        directory.write(result)
    except TfosError as error:
        # The run has ended as it has; the client hears of it by the exit code alone.
        log.error("the record of the run is lost: %s", error)
    if result.outcome == "interrupted":
        _end_application(application)
    return result.exit_code


def _end_application(application: str) -> None:
    """Have YARN end this application: to YARN a driver that ends like this one has failed.

    It would start another attempt, which only repeats what the record says. Blocks until YARN has
    done so, which ends this process. Spark keeps what it has staged of an application that is
    killed, for another attempt; it goes first.
    """
    from pyspark import SparkContext

    if SparkContext._jvm is None:
        return  # there was no time for Spark
    yarn = YarnClient(SparkContext._jvm)
    if staged := os.environ.get("SPARK_YARN_STAGING_DIR"):
        with _warned():
            yarn.remove(staged)
    with _warned():
        yarn.kill(application)


def _note_registry(
    directory: RunDirectory, left: RegistryAddress | None, address: RegistryAddress
) -> None:
    """Note where the run's nodes are, and remove those of the attempt before.

    By now this one holds the job's lock: the driver before is dead, not only cut off from YARN.
    """
    if left is not None:
        erase_run(left)
    with _warned():
        directory.note_registry(address)


@contextlib.contextmanager
def _warned() -> Iterator[None]:
    try:
        yield
    except InfrastructureError as error:
        log.warning("%s", error)


def _run(
    submission: Submission,
    config: JobConfig,
    watch: Callable[[Submission], None],
    **told: Callable[..., None],
) -> RunResult:
    """Run with `told`, the calls by which `tfos.run` tells what another process must know."""
    try:
        with Interrupts(config.supervision.timeout_s, submission.submitted_at) as interrupts:
            threading.Thread(target=watch, args=(submission,), daemon=True).start()
            with explained_machine_faults():
                return _run_on_spark(submission, config, interrupts, told)
    except TfosError as error:
        result: RunResult = error.result or RunResult.from_error(error, job=config.name)
        _explain(error, result)
        return result


def _run_on_spark(
    submission: Submission,
    config: JobConfig,
    interrupts: Interrupts,
    told: Mapping[str, Callable[..., None]],
) -> RunResult:
    # First, as the application's own lines may use it when it is imported.
    spark = _start_spark(config, submission.tag)
    application = str(spark.sparkContext.applicationId)
    interrupts.install()
    code = int(ExitCode.INTERNAL)
    try:
        sys.argv = [submission.app, *config.args]
        job = load_job(Path(submission.app), submission.job_class)
        result = run_job(
            job,
            spark,
            # Its client may be on another host, and owes the record whatever the end.
            config.model_copy(update={"result_json": None}),
            interrupts=interrupts,
            **told,
        )
        code = result.exit_code
        return result
    except TfosError as error:
        code = int(error.exit_code)
        raise
    finally:
        _stop_spark(spark, application, code)


def _start_spark(config: JobConfig, tag: str | None) -> SparkSession:
    from py4j.protocol import Py4JJavaError
    from pyspark.sql import SparkSession

    if not has_entry():
        _log_in()
    try:
        with _showing_wait(config):
            return SparkSession.builder.getOrCreate()
    except Py4JJavaError as error:
        raise explain_refusal(str(error), config) from error
    except BaseException:
        if tag is not None:
            _kill_tagged(tag)
        raise


@contextlib.contextmanager
def _showing_wait(config: JobConfig) -> Iterator[None]:
    """Show what is waited for while YARN does not run the application of a driver on this host."""
    if config.spark.master.kind != "yarn" or config.spark.deploy_mode == "cluster":
        yield
        return
    wait = YarnWait(config.spark.env.is_archive, time.monotonic())
    started = threading.Event()

    def show() -> None:
        while not started.wait(1.0):
            if (words := wait.words(time.monotonic())) is not None:
                log.info("%s", words)

    threading.Thread(target=show, name="tfos-yarn-wait", daemon=True).start()
    try:
        yield
    finally:
        started.set()


def _log_in() -> None:
    """Name the user to Hadoop in Spark's JVM, whose own login needs an entry in passwd."""
    from pyspark import SparkContext

    SparkContext._ensure_initialized()
    jvm: Any = SparkContext._jvm
    users = jvm.org.apache.hadoop.security.UserGroupInformation
    users.setLoginUser(users.createRemoteUser(user_name()))


def _kill_tagged(tag: str) -> None:
    """End what waits in YARN's queue for this driver: it would look for it once it has room."""
    from pyspark import SparkContext

    try:
        yarn = YarnClient(SparkContext._jvm)
        for application in yarn.find(tag):
            if not application.ended:
                log.warning("killing %s, which has not begun", application.id)
                yarn.kill(application.id)
                # Spark, which still waits for it, removes what it has staged when it sees the end.
                time.sleep(SPARK_SEES_S)
    except Exception as error:
        log.warning("what was submitted to YARN may still wait there: %s", error)


def _stop_spark(spark: SparkSession, application: str, code: int) -> None:
    from py4j.protocol import Py4JError
    from pyspark import SparkContext

    kind = Master(str(spark.sparkContext.master)).kind
    # The user's code may have stopped the session that it was given, and started another.
    context = SparkContext._active_spark_context
    # A JVM that is gone has nothing left to stop, and must not hide how the run ended.
    with contextlib.suppress(Py4JError, OSError):
        if context is not None and kind == "yarn":
            # Otherwise YARN takes a driver in client mode that failed for one that succeeded.
            context._jsc.sc().stop(code)
    if context is not None:
        context.stop()
    if kind == "local-cluster":
        # Its executors' files go below SPARK_HOME, wherever that is, and nothing clears them.
        work = Path(os.environ.get("SPARK_HOME", ".")) / "work"
        shutil.rmtree(work / application, ignore_errors=True)


def _explain(error: TfosError, result: RunResult) -> None:
    report = render_failures(result.failures, result.incidents)
    if isinstance(error, UserCodeError):
        report = printable_lines(error.user_traceback)
    if report:
        print(report, file=sys.stderr)
    log.debug("the run ended with", exc_info=error)


def _write_pid(path: str) -> None:
    aside = f"{path}.tmp"
    Path(aside).write_text(str(os.getpid()), encoding="ascii")
    os.replace(aside, path)


def _watch_client(submission: Submission) -> None:
    """End the run when the submitting process has died without a word: nobody waits for it."""
    while _client_lives(submission):
        time.sleep(CLIENT_POLL_S)
    log.warning("pl_submit is gone: ending the run")
    os.kill(os.getpid(), signal.SIGTERM)


def _watch_stop(directory: RunDirectory) -> None:
    """End the run when somebody asks for it by the run's directory."""
    while True:
        time.sleep(STOP_POLL_S)
        try:
            why = directory.stop_asked()
        except TfosError as error:
            log.debug("%s", error)
            continue
        if why is not None:
            log.warning("%s: ending the run", why)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _client_lives(submission: Submission) -> bool:
    """Whether the submitting process lives, or may: one on another host."""
    if submission.client is None:
        return True
    return submission.client.judged_from(ProcessIdentity.here({})) is not Proof.DEAD


def run_program(argv: list[str]) -> NoReturn:
    """Run `main`, and exit with its code."""
    try:
        code = main(argv)
    except InterruptedRunError:
        code = int(ExitCode.INTERRUPTED)
    sys.exit(code)
