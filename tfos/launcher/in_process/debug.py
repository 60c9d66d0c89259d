"""``tfos debug``: ``pre_train`` and ``train`` in one process, on its terminal."""

from __future__ import annotations

import logging
import sys
import traceback
from bdb import BdbQuit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tfos
from tfos.config import JobConfig
from tfos.errors import InterruptedRunError, TfosError
from tfos.fault.failures.error_text import headline, user_traceback
from tfos.launcher.application.check import check_job
from tfos.launcher.application.loading import UserCodeError, load_job
from tfos.launcher.driver.datasets import check_frames
from tfos.launcher.handover.result import RunResult
from tfos.launcher.in_process.run import prepare_process, train_in_process
from tfos.launcher.in_process.session import local_session
from tfos.launcher.platform.console import show_log
from tfos.launcher.submit.prerequisites import check_application, check_files, parse_app
from tfos.master import Master

__all__ = ["debug", "is_used"]

log = logging.getLogger("tfos")

MASTER = Master("local[1]")
_USED = (
    "name",
    "params",
    "args",
    "model_dir",
    "log_level",
    "spark.conf",
    "spark.py_files",
    "keras",
)
_USED_SECTIONS = ("feed.", "checkpoints.")


def debug(config: JobConfig, app: str, options: Mapping[str, str]) -> int:
    """Run an application in this process, ``pre_train`` on a local Spark session.

    Blocks until ``train`` has returned.

    Parameters
    ----------
    config
        The configuration. What is meant for a cluster, for roles or for supervision is not used.
    app
        ``app.py`` or ``app.py:JobClass``.
    options
        The settings given on the command line, and the option of each: those that are not used
        are named in a warning.

    Returns
    -------
    int
        0: every other end is raised.

    Raises
    ------
    UserCodeError
        If the application raised; its own traceback is on standard error by then.
    InterruptedRunError
        If the debugger was left with ``q``, or by Ctrl-C.
    TfosError
        As `train_in_process` and `load_job`.
    """
    show_log(config.log_level)
    unused = [option for setting, option in options.items() if not is_used(setting)]
    if unused:
        log.warning("not used: %s; train runs once, in this process", ", ".join(unused))
    path, job_class = parse_app(app)
    check_application(path, job_class)
    check_files(config)
    prepare_process(config)
    sys.path[:0] = config.spark.py_files
    sys.argv = [str(path), *config.args]
    try:
        result = _run(path, job_class, config)
    except (BdbQuit, KeyboardInterrupt) as left:
        how = "the debugger was left" if isinstance(left, BdbQuit) else "interrupted by SIGINT"
        raise InterruptedRunError(how, signal_name="SIGINT") from left
    except UserCodeError as error:
        if isinstance(error.__cause__, BdbQuit):
            raise InterruptedRunError("the debugger was left", signal_name="SIGINT") from error
        print(error.user_traceback, file=sys.stderr)
        raise
    except TfosError as error:
        if _went_through_the_job(error):
            print(user_traceback(error), file=sys.stderr)
        raise
    except (Exception, SystemExit) as error:
        print(user_traceback(error), file=sys.stderr)
        raise UserCodeError(headline(error)) from error
    metrics = [f"{name} {value:.4g}" for name, value in sorted(result.metrics.items())]
    log.info("%s", "  ".join(["done", f"{result.steps:,} steps", *metrics]))
    if result.result is not None:
        log.info("train returned %s", result.result)
    return 0


def _run(path: Path, job_class: str | None, config: JobConfig) -> RunResult:
    with local_session(config, MASTER, config.name or path.stem) as spark:
        # Only now, as the application's own lines may use Spark when it is imported.
        job = load_job(path, job_class)
        check_job(job)

        def load() -> Mapping[str, Any]:
            return check_frames(job.pre_train(spark), type(job).__name__)

        return train_in_process(job, load, config)


def is_used(setting: str) -> bool:
    """Say whether `debug` uses a setting."""
    return setting in _USED or setting.startswith(_USED_SECTIONS)


def _went_through_the_job(error: BaseException) -> bool:
    ours = str(Path(tfos.__file__).resolve().parent)
    frames = traceback.extract_tb(error.__traceback__)
    return any(not frame.filename.startswith(ours) for frame in frames)
