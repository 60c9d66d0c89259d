"""Be the driver program that spark-submit runs: load the application, run it, write the record."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

from tfos.config import JobConfig
from tfos.errors import ExitCode, InterruptedRunError, TfosError
from tfos.launcher.application import UserCodeError, load_job
from tfos.launcher.failure_report import render_failures
from tfos.launcher.interrupts import Interrupts
from tfos.launcher.result import RunResult
from tfos.launcher.run import run
from tfos.launcher.submission import Submission, master_kind

log = logging.getLogger("tfos")

CLIENT_POLL_S = 1.0


def main(argv: list[str]) -> int:
    """Run the submission file named on the command line; return the exit code."""
    submission = Submission.from_json(json.loads(Path(argv[1]).read_text(encoding="utf-8")))
    _write_pid(submission.pid_file)
    config = submission.job_config
    _configure_logging(config)
    result = _run(submission, config)
    result.write(submission.result_file)
    if not _client_lives(submission):
        # Its own end would have removed this; nobody else does.
        shutil.rmtree(Path(submission.pid_file).parent, ignore_errors=True)
    return result.exit_code


def _run(submission: Submission, config: JobConfig) -> RunResult:
    try:
        with Interrupts(config.supervision.timeout_s) as interrupts:
            watch = threading.Thread(target=_watch_client, args=(submission,), daemon=True)
            watch.start()
            return _run_on_spark(submission, config, interrupts)
    except TfosError as error:
        result: RunResult = getattr(error, "result", None) or RunResult.from_error(
            error, job=config.name
        )
        _explain(error, result)
        return result


def _run_on_spark(submission: Submission, config: JobConfig, interrupts: Interrupts) -> RunResult:
    from pyspark.sql import SparkSession

    app = Path(submission.app)
    job = load_job(app, submission.job_class)
    spark = SparkSession.builder.getOrCreate()
    interrupts.install()
    try:
        return run(
            job,
            spark,
            config,
            app_directories=[str(app.parent)],
            interrupts=interrupts,
            registry_file=submission.registry_file,
        )
    finally:
        application = str(spark.sparkContext.applicationId)
        master = str(spark.sparkContext.master)
        spark.stop()
        if master_kind(master) == "local-cluster":
            # Its executors' files go below SPARK_HOME, wherever that is, and nothing clears them.
            work = Path(os.environ.get("SPARK_HOME", ".")) / "work"
            shutil.rmtree(work / application, ignore_errors=True)


def _explain(error: TfosError, result: RunResult) -> None:
    report = render_failures(result.failures, result.incidents)
    if isinstance(error, UserCodeError):
        report = error.user_traceback
    if report:
        print(report, file=sys.stderr)
    log.debug("the run ended with", exc_info=error)


def _write_pid(path: str) -> None:
    aside = f"{path}.tmp"
    Path(aside).write_text(str(os.getpid()), encoding="ascii")
    os.replace(aside, path)


def _configure_logging(config: JobConfig) -> None:
    logging.basicConfig(format="%(asctime)s tfos: %(message)s", datefmt="%H:%M:%S")
    log.setLevel(config.log_level.upper())


def _watch_client(submission: Submission) -> None:
    """End the run when the submitting process has died without a word: nobody waits for it."""
    while _client_lives(submission):
        time.sleep(CLIENT_POLL_S)
    log.warning("pl_submit (pid %d) is gone: ending the run", submission.client_pid)
    os.kill(os.getpid(), signal.SIGTERM)


def _client_lives(submission: Submission) -> bool:
    try:
        client = psutil.Process(submission.client_pid)
        if client.status() == psutil.STATUS_ZOMBIE:
            return False
        # Another process may have been given the number since.
        return abs(client.create_time() - submission.client_start_s) < 1.0
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    # Run as a script, this file's own directory comes first on the path, where its neighbours'
    # names would shadow modules of the user's.
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    try:
        code = main(sys.argv)
    except InterruptedRunError:
        code = int(ExitCode.INTERRUPTED)
    sys.exit(code)
