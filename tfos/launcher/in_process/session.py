"""A Spark session of the calling process, on this machine, with the properties of tfos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tfos.config import JobConfig
from tfos.errors import LaunchError
from tfos.java import QUICK_JVM
from tfos.launcher.submit.prerequisites import check_java, child_environment, find_spark_home
from tfos.launcher.submit.spark_command import spark_properties
from tfos.master import Master

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["local_session"]

_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
# An in-process run collects DataFrames: the memory of the process is the limit.
_COLLECTED = {"spark.driver.maxResultSize": "0"}


@contextmanager
def local_session(config: JobConfig, master: Master, name: str) -> Iterator[SparkSession]:
    """Start a session on `master`, and stop it when the block ends. Blocks for seconds.

    Parameters
    ----------
    config
        Of it ``feed`` and ``spark.conf`` are used.
    master
        ``local[N]`` or ``local[N,FAILURES]``.
    name
        Name of the Spark application.

    Raises
    ------
    ConfigError
        If Java or PySpark is missing or unfit.
    LaunchError
        If this process has a Spark session already, or Spark does not start.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    check_java()
    if SparkSession.getActiveSession() is not None:
        raise LaunchError(
            "this process has a Spark session already, whose master and properties would be kept: "
            "stop it first"
        )
    spark = config.spark.model_copy(update={"master": master, "deploy_mode": "client"})
    config = config.model_copy(update={"spark": spark, "arch": "local"})
    builder = SparkSession.builder.master(master).appName(name)
    properties = {**_COLLECTED, **spark_properties(config)}
    # Small data and a start that somebody waits for; the user's own options come last, and win.
    properties[_JAVA_OPTIONS] = " ".join([*QUICK_JVM, properties[_JAVA_OPTIONS]])
    for key, value in properties.items():
        builder = builder.config(key, value)
    with _environment(child_environment(config, find_spark_home())):
        try:
            session = builder.getOrCreate()
        except PySparkException as error:
            raise LaunchError(f"Spark does not start: {' '.join(str(error).split())}") from error
        try:
            yield session
        finally:
            session.stop()


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have the environment be `wanted` for the block; what the block sets in it stays."""
    before = dict(os.environ)
    changed = {name for name, value in wanted.items() if before.get(name) != value}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in changed:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
