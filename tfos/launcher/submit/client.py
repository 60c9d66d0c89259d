"""Submit a run from the command line's side: check, start spark-submit, answer for its record."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tfos.config import JobConfig
from tfos.errors import (
    ConfigError,
    ExitCode,
    InfrastructureError,
    InterruptedRunError,
    LaunchError,
    RunTimeoutError,
    TfosError,
)
from tfos.fault.processes.identity import ProcessIdentity
from tfos.files.private import write_private
from tfos.frameworks.contract import load_framework
from tfos.frameworks.tensorflow.keras import check_keras
from tfos.launcher.application.archive import home_of_file, pack_application
from tfos.launcher.handover.failure_report import render_failures
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.registry_nodes import erase_last_run
from tfos.launcher.handover.result import RunResult, discard_record, now_iso
from tfos.launcher.handover.run_directory import runs_root
from tfos.launcher.handover.submission import Submission
from tfos.launcher.platform.checks import check_supported
from tfos.launcher.platform.console import show_log
from tfos.launcher.platform.hadoop_conf import hadoop_conf_dir
from tfos.launcher.platform.paths import resolve_paths
from tfos.launcher.platform.role_memory import JVM_MEMORY_ADVICE
from tfos.launcher.platform.spark_security import with_drawn_secret
from tfos.launcher.submit.cluster_mode import run_in_cluster, staging_directory
from tfos.launcher.submit.prerequisites import (
    check_account,
    check_application,
    check_files,
    check_gpus,
    check_java,
    child_environment,
    find_spark_home,
    parse_app,
    submitting_environment,
)
from tfos.launcher.submit.shipping import plan_shipping, ship
from tfos.launcher.submit.spark_command import (
    APPLICATION_DIRECTORY,
    describe_submission,
    secret_properties,
    shipped_with,
    spark_submit_command,
)
from tfos.launcher.submit.spark_process import SparkExit, raised_signals, run_spark_submit
from tfos.machine_faults import check_umask, current_directory, explained_machine_faults

__all__ = ["record_error", "submit"]

log = logging.getLogger("tfos")

_JVM_OUT_OF_MEMORY: Final = 52
"""`SparkExitCode.OOM`: with a local master the driver's JVM runs the tasks, and ends with it."""


def submit(config: JobConfig, app: str, *, dry_run: bool = False) -> int:
    """Run an application to its end; with `dry_run` only print what would be run.

    Blocks until the run has ended and every process of it on this machine is gone. Runs anywhere;
    signals are passed on only when called from the main thread. The run's record is written to
    ``config.result_json`` whatever the end.

    Parameters
    ----------
    config
        The resolved configuration; relative paths in it are taken from the current directory.
    app
        ``app.py`` or ``app.py:JobClass``.

    Returns
    -------
    int
        0: every other end is raised as an error with its ``exit_code``.

    Raises
    ------
    TfosError
        If the run failed, with the exit code and the failures of the driver's record.
    ConfigError
        If the application, an option, Java or PySpark is missing or unfit; nothing was started.
    InsufficientExecutorsError
        If the master has fewer slots than the run has roles; nothing was started.
    InterruptedRunError, RunTimeoutError, LaunchError, InfrastructureError
        If the driver ended without writing the run's record.
    """
    started = now_iso()
    show_log(config.log_level)
    check_umask()
    config = resolve_paths(config, current_directory())
    if dry_run:
        _dry_run(config, app)
        return ExitCode.OK
    try:
        with explained_machine_faults():
            if config.result_json is not None:
                discard_record(config.result_json)
            return _submit(config, app)
    except TfosError as error:
        if config.result_json is not None and _read_record(config.result_json) is None:
            record_error(config.result_json, error, job=config.name, started=started)
        raise


def record_error(path: str, error: TfosError, **known: str | None) -> None:
    """Write the record of a run that `error` ended, in place of any other.

    Raises ConfigError when it cannot be written.
    """
    RunResult.from_error(error, **known).write(path)


def _dry_run(config: JobConfig, app: str) -> None:
    check_supported(config, dry_run=True)
    check_keras(load_framework(config.arch), config.keras)
    path, job_class = parse_app(app)
    check_application(path, job_class)
    spark_home = find_spark_home()
    check_gpus(config, spark_home)
    planned = plan_shipping(config)
    if config.spark.deploy_mode == "cluster":
        planned = shipped_with(planned, "SUBMISSION.json", "APPLICATION.zip")
    command = spark_submit_command(
        planned,
        "SUBMISSION.json",
        spark_home=spark_home,
        default_name=path.stem,
        properties_file="SECRETS.conf",
    )
    print(describe_submission(config, command), end="")


def _submit(config: JobConfig, app: str) -> int:
    check_supported(config)
    framework = load_framework(config.arch)
    check_keras(framework, config.keras)
    if config.spark.master.is_local:
        framework.check_installed()
    path, job_class = parse_app(app)
    check_account(config.spark.master)
    check_application(path, job_class)
    check_files(config)
    if config.spark.master.kind == "yarn":
        hadoop_conf_dir()
    spark_home = find_spark_home()
    check_gpus(config, spark_home)
    with raised_signals():
        shipped = ship(config, spark_home, _staging(config))
    if config.spark.deploy_mode == "cluster":
        return _submit_to_cluster(config, shipped, path, job_class, spark_home)
    tag = None
    if config.spark.master.kind == "yarn":
        tag = f"tfos-{uuid.uuid4().hex}"
        tagged = {"tags": [*shipped.spark.tags, tag]}
        shipped = shipped.model_copy(update={"spark": shipped.spark.model_copy(update=tagged)})
    protected = with_drawn_secret(shipped.spark)
    shipped = shipped.model_copy(update={"spark": protected})
    with tempfile.TemporaryDirectory(prefix="tfos-", ignore_cleanup_errors=True) as directory:
        room = Path(directory)
        result_file = config.result_json or str(room / "result.json")
        submission = Submission(
            app=str(path),
            job_class=job_class,
            config=config,
            pid_file=str(room / "driver.pid"),
            result_file=result_file,
            registry_file=str(room / "registry.json"),
            submitted_at=time.time(),
            client=ProcessIdentity.here({}),
            tag=tag,
        )
        command = spark_submit_command(
            shipped,
            submission.write(room / "submission.json"),
            spark_home=spark_home,
            default_name=path.stem,
            properties_file=write_private(
                room / "secrets.conf", _properties_text(secret_properties(shipped))
            ),
        )
        check_java()
        ended = run_spark_submit(
            command,
            environ=child_environment(config, spark_home),
            pid_file=Path(submission.pid_file),
            grace_s=config.supervision.grace_s,
            timeout_s=config.supervision.timeout_s,
        )
        try:
            return _answer(config, ended, result_file)
        finally:
            if _read_record(result_file) is None:
                _erase_registry(submission.registry_file)


def _staging(config: JobConfig) -> str:
    """Return where `ship` puts things; nowhere where it need not put any."""
    if config.spark.master.kind == "yarn" or config.spark.staging_dir is not None:
        return staging_directory(config)
    if config.spark.env.is_packed:
        raise ConfigError(
            f"--env {config.spark.env} is put where every host reads it: set spark.staging_dir"
        )
    return ""


def _submit_to_cluster(
    config: JobConfig, shipped: JobConfig, path: Path, job_class: str | None, spark_home: Path
) -> int:
    staging = staging_directory(config)
    with tempfile.TemporaryDirectory(prefix="tfos-", ignore_cleanup_errors=True) as directory:
        room = Path(directory)
        home = home_of_file(path)
        (room / "application.zip").write_bytes(pack_application(home.directory))
        submission = Submission(
            app=f"{APPLICATION_DIRECTORY}/{path.relative_to(home.directory)}",
            job_class=job_class,
            config=config,
            pid_file="driver.pid",
            result_file="result.json",
            registry_file="registry.json",
            submitted_at=time.time(),
            runs_root=runs_root(staging),
        )
        command = spark_submit_command(
            shipped_with(
                shipped,
                submission.write(room / "submission.json"),
                str(room / "application.zip"),
            ),
            "submission.json",
            spark_home=spark_home,
            default_name=path.stem,
            properties_file=write_private(
                room / "secrets.conf", _properties_text(secret_properties(config))
            ),
        )
        check_java()
        environ = submitting_environment(config, spark_home)
        record = run_in_cluster(
            command, config, environ=environ, staging=staging, directory=directory
        )
    if record is None:
        return ExitCode.OK
    if config.result_json is not None:
        record.write(config.result_json)
    report = render_failures(record.failures, record.incidents)
    if report:
        print(report, file=sys.stderr)
    return _told(record)


def _told(record: RunResult) -> int:
    """Return 0 for a run that its record calls done; raise what it says otherwise."""
    if record.exit_code:
        raise TfosError(
            record.error or f"the run ended {record.outcome}",
            exit_code=ExitCode(record.exit_code),
            failures=record.failures,
        )
    return ExitCode.OK


def _erase_registry(note: str) -> None:
    # Without the file, or all of it, the driver came not so far, or its own server died with it.
    with contextlib.suppress(OSError, ValueError, TfosError), raised_signals():
        erase_last_run(RegistryAddress.noted(note))


def _answer(config: JobConfig, ended: SparkExit, result_file: str) -> int:
    """Return 0 for a run that its record calls done; raise what the record, or its lack, says."""
    record = _read_record(result_file)
    if record is None:
        raise _unrecorded(config, ended)
    # The driver writes it last of all: what its JVM does afterwards does not change the run.
    return _told(record)


def _unrecorded(config: JobConfig, ended: SparkExit) -> TfosError:
    supervision = config.supervision
    if ended.timed_out:
        return RunTimeoutError(
            f"the run went past --timeout {supervision.timeout_s:g} s and its driver did not end "
            "it: everything was killed",
            timeout_s=supervision.timeout_s,
        )
    if ended.exit_code == ExitCode.INTERRUPTED:
        return InterruptedRunError(
            f"interrupted by {ended.signal_name or 'a signal'}", signal_name=ended.signal_name
        )
    if ended.driver_started and ended.exit_code == ended.returncode != ExitCode.OK:
        return TfosError(
            f"the driver ended with {_how(ended)} before it could write the run's record; "
            "its own words are above",
            exit_code=ExitCode(ended.exit_code),
        )
    if ended.returncode == _JVM_OUT_OF_MEMORY:
        return TfosError(
            f"Spark's JVM ran out of memory and ended: {JVM_MEMORY_ADVICE}",
            exit_code=ExitCode.RESOURCES,
        )
    if not ended.driver_started:
        return LaunchError(
            f"spark-submit ended with {_how(ended)} before the driver started; "
            "its own words are above (--dry-run shows the command)"
        )
    return InfrastructureError(
        f"the driver ended with {_how(ended)} and left no record of the run; "
        "an os._exit in pre_train, or the machine's memory, are the usual reasons"
    )


def _how(ended: SparkExit) -> str:
    code = ended.returncode
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _properties_text(properties: Mapping[str, str]) -> str:
    """Write a file of Java properties; all but plain ASCII is escaped by UTF-16 code unit."""

    def escaped(value: str) -> str:
        data = value.encode("utf-16-be", "surrogatepass")
        units = [data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)]
        plain = range(ord("!"), ord("~") + 1)
        return "".join(chr(u) if u in plain and u != ord("\\") else f"\\u{u:04x}" for u in units)

    return "".join(f"{name}={escaped(value)}\n" for name, value in properties.items())


def _read_record(path: str) -> RunResult | None:
    try:
        return RunResult.read(path)
    except (OSError, ValueError):
        # Records are written by rename: this one is absent, or not a record of ours.
        return None
