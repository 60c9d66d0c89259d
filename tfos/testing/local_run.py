"""Run a job on a test's own data in the test's own process: seconds, no Spark, no ZooKeeper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfos.base import Job
from tfos.config import JobConfig
from tfos.config_files import with_options
from tfos.launcher.handover.result import RunResult
from tfos.option_names import RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["run_local"]


def run_local(
    job: Job,
    data: Any | Mapping[str, Any],
    config: JobConfig | None = None,
    **options: Unpack[RunOptions],
) -> RunResult:
    """Train a job in this process, as under `local` or `plain`, and return the record of the run.

    ``Job.train`` reads `data` through the real feed, with the real `TrainContext`, common loop and
    checkpoints. ``Job.pre_train`` is not called: to test it as well, call it with a Spark session
    and give its result as `data`. ``Job.shutdown`` is called. What differs from a supervised run:
    nothing is watched or restarted, and the process is the caller's, with its working directory
    and the modules it has imported.

    Blocks until ``train`` has returned. The first call of a process imports TensorFlow (about
    3 s). Variables of a training process's environment that are not set, such as
    ``TF_USE_LEGACY_KERAS=1`` and ``CUDA_VISIBLE_DEVICES=``, are set in this process and stay.

    Parameters
    ----------
    job
        The job. Its ``params`` and ``args`` are set from the configuration.
    data
        The rows of the dataset ``train``, or a mapping of dataset names to rows. Rows are a pandas
        DataFrame (its index is left out), a pyarrow Table, a list of mappings of column names to
        values, or a Spark DataFrame, which is collected.
    config
        The configuration; the defaults of `JobConfig` when None. Of it ``name``, ``params``,
        ``args``, ``model_dir``, ``keras``, ``feed`` and ``checkpoints`` are used.
    **options
        Options by name, which win over `config`, as for `tfos.run`: ``params={"dim": 8},
        checkpoint_dir=tmp_path``.

    Returns
    -------
    RunResult
        ``result`` is what ``train`` returned; ``metrics``, ``steps``, ``rows``, ``checkpoint`` and
        ``model`` are as in a supervised run.

    Raises
    ------
    JobDefinitionError
        If the Job could not be sent to a training process.
    EmptyDataError, UnsupportedTypeError, NullValueError, ConfigError
        If the data or the configuration cannot be used, as in a supervised run.
    Exception
        Whatever ``train`` raises, unchanged.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"item": [3, 7, 3], "clicked": [1.0, 0.0, 1.0]})
    >>> result = run_local(CountJob(), rows, params={"epochs": 2})
    >>> result.rows
    {'train': 3}
    """
    # It needs what a training process needs; importing this module does not.
    from tfos.launcher.in_process.run import train_in_process

    settled = with_options(config, options, caller="run_local")
    return train_in_process(job, lambda: data, settled)
