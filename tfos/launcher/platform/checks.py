"""Refuse what this version or the master cannot give, before anything starts."""

from __future__ import annotations

from tfos.config import JobConfig, RoleResources
from tfos.environments.properties import check_environment
from tfos.errors import ConfigError
from tfos.fault.checkpoints.source import find_source
from tfos.fault.drills.faults import Fault
from tfos.frameworks.contract import STATE, Framework
from tfos.launcher.platform.kubernetes import check_kubernetes
from tfos.launcher.platform.role_memory import LEAST_MEMORY_BYTES
from tfos.launcher.platform.role_tasks import (
    allocates_dynamically,
    is_gang,
    role_resources,
)
from tfos.launcher.platform.spark_security import check_security
from tfos.topology import Role, describe_counts

__all__ = ["check_supported", "check_warm_start"]

_INSTEAD = {
    "memory": "use --spark-conf spark.executor.memory=... (with local: spark.driver.memory)",
    "gpus": "roles see the GPUs that CUDA_VISIBLE_DEVICES names on their hosts, none without it",
}


def check_supported(config: JobConfig, dry_run: bool = False) -> None:
    """Refuse what this version cannot do, and what the master cannot give.

    Parameters
    ----------
    dry_run
        Allow what can be planned and shown although it cannot be run yet.

    Raises
    ------
    ConfigError
        One line naming the option, why not, and what to use instead.
    """
    master = config.spark.master
    if is_gang(config):
        _check_gang(config)
    _check_drill(config)
    _check_placement(config)
    check_security(config.spark)
    check_environment(config.spark.env, master.kind)
    if master.kind == "k8s":
        check_kubernetes(config.spark)
    if not dry_run and config.spark.deploy_mode == "cluster" and master.kind != "yarn":
        raise _unavailable(
            f"--deploy-mode cluster on {master}",
            "use client, or --dry-run to see the command",
        )
    if not dry_run and master.kind == "k8s":
        raise _unavailable(
            "running on Kubernetes", "use --dry-run to see the command, or another master"
        )


def check_warm_start(source: str | None, framework: Framework) -> None:
    """Check that a run can begin from `source`, if from any; looks once at where that lies.

    Raises
    ------
    ConfigError
        If the architecture has no `ctx.fit`, or nothing to begin from lies there.
    CheckpointError
        If it cannot be read.
    """
    if source is None:
        return
    if framework.checkpoint_name != STATE:
        raise ConfigError(
            f"--warm-start is for ctx.fit, which --arch {framework.name} does not have: load them "
            "in train, in a session program by tf.compat.v1.train.init_from_checkpoint before "
            "ctx.monitored_session"
        )
    find_source(source)


def _check_gang(config: JobConfig) -> None:
    if allocates_dynamically(config.spark.conf, unset=False):
        raise ConfigError(
            f"--arch {config.arch} cannot have spark.dynamicAllocation.enabled=true: its ranks are "
            "one barrier stage, which Spark starts only on executors that stay; leave it out or "
            "false, and set spark.executor.instances"
        )
    roles = role_resources(config)
    for role in sorted(set(Role) - roles.keys()):
        for setting, value in getattr(config.roles, role.value).model_dump().items():
            if value:
                others = ", ".join(f"--{each.value}-{setting}" for each in roles)
                raise ConfigError(
                    f"--{role.value}-{setting} means nothing to --arch {config.arch}, which has no "
                    f"{role.value}: use {others}"
                )


def _check_placement(config: JobConfig) -> None:
    spark = config.spark
    if spark.deploy_mode == "cluster" and spark.master.is_local:
        raise ConfigError(
            f"--deploy-mode cluster needs a cluster: --master {spark.master} runs everything on "
            "this machine; use --deploy-mode client"
        )
    for option, given in (
        ("--queue", spark.queue),
        ("--priority", spark.priority),
        ("--tags", spark.tags or None),
    ):
        if given is not None and spark.master.kind != "yarn":
            raise ConfigError(f"{option} is YARN's: it means nothing to --master {spark.master}")
    if not spark.wait and spark.deploy_mode != "cluster":
        raise ConfigError(
            "--no-wait needs --deploy-mode cluster: in client mode the driver is part of this "
            "command"
        )
    if not spark.wait and config.result_json is not None:
        raise ConfigError(
            "--no-wait ends before there is a record: leave --result-json out, and ask "
            "`tfos status --json` for it"
        )
    if spark.master.in_containers:
        _check_memory(config)
        return
    for role in Role:
        resources: RoleResources = getattr(config.roles, role.value)
        for setting, instead in _INSTEAD.items():
            if getattr(resources, setting):
                raise ConfigError(
                    f"--{role.value}-{setting} needs YARN or Kubernetes: on {spark.master} every "
                    f"role lives in executors of one size; {instead}"
                )


def _check_memory(config: JobConfig) -> None:
    for role, (_, resources) in role_resources(config).items():
        if resources.memory is not None and resources.memory < LEAST_MEMORY_BYTES:
            raise ConfigError(
                f"--{role}-memory {resources.memory >> 20}m is too little: it is all the memory of "
                f"{role}s, and JVM, Python and TensorFlow take about 1.1 GB before anything is "
                f"trained; use {LEAST_MEMORY_BYTES >> 20}m or more"
            )


def _check_drill(config: JobConfig) -> None:
    roles = role_resources(config)
    for fault in map(Fault.parse, config.supervision.inject):
        if fault.key is None:
            if fault.part == "zookeeper" and config.registry.zookeeper is not None:
                raise ConfigError(f"--inject {fault}: tfos did not start that ZooKeeper")
            continue
        count, _ = roles.get(fault.key.role, (0, None))
        if fault.key.index >= count:
            raise ConfigError(
                f"--inject {fault}: this run has no {fault.key}; it has "
                + describe_counts({role: count for role, (count, _) in roles.items()})
            )


def _unavailable(what: str, instead: str) -> ConfigError:
    return ConfigError(f"{what} is not available in this version: {instead}")
