"""Ship what containers of a cluster need and do not have: Python's environment, Spark's jars."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from tfos.config import JobConfig
from tfos.environments.inspection import problems
from tfos.environments.packing import pack
from tfos.environments.progress import Progress, stderr_progress
from tfos.environments.properties import environment_properties
from tfos.environments.spark_jars import pack_spark_jars
from tfos.environments.upload import upload
from tfos.frameworks.contract import load_framework
from tfos.launcher.submit.prerequisites import is_set_for_spark

__all__ = ["plan_shipping", "ship"]

log = logging.getLogger("tfos")

_JARS = ("spark.yarn.archive", "spark.yarn.jars")


def ship(config: JobConfig, spark_home: Path, staging: str) -> JobConfig:
    """Return the configuration by which containers have what it asks for.

    The first time it packs and uploads, which takes a minute for an environment with TensorFlow;
    afterwards it looks that all is there. Progress goes to standard error.

    Parameters
    ----------
    staging
        Directory of the cluster's file system; see `tfos.launcher.submit.cluster_mode`.

    Raises
    ------
    ConfigError
        If there is no such environment, or the file system is unknown.
    InfrastructureError
        If something cannot be written.
    """
    spec = config.spark.env
    jars: dict[str, str] = {}
    with stderr_progress() as progress:
        url = _ship_environment(config, staging, progress) if spec.is_packed else None
        is_yarn = config.spark.master.kind == "yarn"
        given = any(is_set_for_spark(name, config.spark.conf, spark_home) for name in _JARS)
        if is_yarn and not given:
            archive = pack_spark_jars(spark_home, progress)
            jars["spark.yarn.archive"] = _upload(archive, f"{staging}/spark-jars", progress)
    return _with_environment(config, url, jars)


def plan_shipping(config: JobConfig) -> JobConfig:
    """Return the configuration with what `--env` adds, for a dry run.

    Nothing is packed or uploaded: capitals stand for what is not known before that, and where
    Spark's jars will be is not told.
    """
    staging = config.spark.staging_dir or "STAGING"
    packed = config.spark.env.is_packed
    url = f"{staging.rstrip('/')}/environments/ENVIRONMENT.tar.gz" if packed else None
    return _with_environment(config, url, {})


def _with_environment(
    config: JobConfig, url: str | None, properties: Mapping[str, str]
) -> JobConfig:
    spec = config.spark.env
    archives = config.spark.archives
    conf = dict(properties)
    if spec.kind != "none":
        kind = config.spark.master.kind
        conf.update(environment_properties(spec, kind, url, archives=archives))
        archives = [] if spec.is_archive else archives
    spark = config.spark.model_copy(
        update={"conf": {**conf, **config.spark.conf}, "archives": archives}
    )
    return config.model_copy(update={"spark": spark})


def _ship_environment(config: JobConfig, staging: str, progress: Progress) -> str:
    spec = config.spark.env
    packed = pack(spec, progress)
    python = sys.version_info[:2] if config.spark.deploy_mode == "client" else None
    packages = load_framework(config.arch).packages
    for warning in problems(packed.inspection, packages, python=python):
        log.warning("--env %s: %s", spec, warning)
    return _upload(packed.archive, f"{staging}/environments", progress)


def _upload(archive: Path, base: str, progress: Progress) -> str:
    uploaded = upload(archive, base, progress)
    if uploaded.private_because is not None:
        log.warning(
            "YARN unpacks %s anew for each application, because %s",
            uploaded.url,
            uploaded.private_because,
        )
    return uploaded.url
