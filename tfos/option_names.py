"""Options of the command line by name: the setting each sets, and those `tfos.run` takes. Pure."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

__all__ = [
    "SETTING_OF_OPTION",
    "SETTING_OF_RUN_OPTION",
    "RunOptions",
    "describe_unknown_option",
]

SETTING_OF_OPTION = {
    "master": "spark.master",
    "deploy_mode": "spark.deploy_mode",
    "name": "name",
    "arch": "arch",
    "keras": "keras",
    "num_ps": "roles.num_ps",
    "num_workers": "roles.num_workers",
    "ps_memory": "roles.ps.memory",
    "worker_memory": "roles.worker.memory",
    "chief_memory": "roles.chief.memory",
    "ps_cores": "roles.ps.cores",
    "worker_cores": "roles.worker.cores",
    "chief_cores": "roles.chief.cores",
    "worker_gpus": "roles.worker.gpus",
    "zookeeper": "registry.zookeeper",
    "checkpoint_dir": "checkpoints.dir",
    "model_dir": "model_dir",
    "fresh": "checkpoints.fresh",
    "warm_start": "checkpoints.warm_start",
    "max_restarts": "supervision.max_restarts",
    "stall_timeout": "supervision.stall_timeout_s",
    "inject": "supervision.inject",
    "timeout": "supervision.timeout_s",
    "env": "spark.env",
    "queue": "spark.queue",
    "priority": "spark.priority",
    "tags": "spark.tags",
    "wait": "spark.wait",
    "encrypt": "spark.encrypt",
    "principal": "spark.principal",
    "keytab": "spark.keytab",
    "param": "params",
    "spark_conf": "spark.conf",
    "py_files": "spark.py_files",
    "files": "spark.files",
    "archives": "spark.archives",
    "result_json": "result_json",
    "log_level": "log_level",
}
"""Option, as click names it -> the setting it sets."""


class RunOptions(TypedDict, total=False):
    """Options of ``pl_submit`` that `tfos.run` takes, each by its name in Python.

    Sizes and times may be text, as on the command line: ``"2g"``, ``"15m"``. What starts Spark is
    not among them: `tfos.run` is given a running session.
    """

    name: str | None
    arch: str
    keras: int
    num_ps: int
    num_workers: int
    ps_memory: str | int | None
    worker_memory: str | int | None
    chief_memory: str | int | None
    ps_cores: int | None
    worker_cores: int | None
    chief_cores: int | None
    worker_gpus: int
    zookeeper: str | None
    checkpoint_dir: str | os.PathLike[str] | None
    model_dir: str | os.PathLike[str] | None
    fresh: bool
    warm_start: str | os.PathLike[str] | None
    max_restarts: int
    stall_timeout: str | float
    inject: Sequence[str]
    timeout: str | float | None
    params: Mapping[str, object]
    args: Sequence[str]
    result_json: str | os.PathLike[str] | None
    log_level: str


_RENAMED = {"param": "params"}
SETTING_OF_RUN_OPTION: Mapping[str, str] = {
    **{
        _RENAMED.get(option, option): setting
        for option, setting in SETTING_OF_OPTION.items()
        if not setting.startswith("spark.")
    },
    "args": "args",
}
"""Keyword argument of `tfos.run` -> the setting it sets."""


def describe_unknown_option(name: str) -> str:
    """Return one line about a name that is no option of `tfos.run`."""
    if SETTING_OF_OPTION.get(name, "").startswith("spark."):
        return f"{name} is for starting Spark: set it where the SparkSession is made"
    close = difflib.get_close_matches(name, SETTING_OF_RUN_OPTION, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(SETTING_OF_RUN_OPTION)}"
    return f"{name} is not an option; {hint}"
