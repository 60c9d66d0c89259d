"""Decide what a submission asks of Spark, and refuse what cannot work before anything starts. Pure.

Also holds `Submission`, the file by which ``pl_submit`` tells the driver what to run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from tfos.config import LOCATION, JobConfig, RoleResources
from tfos.environments.properties import check_environment
from tfos.environments.specification import parse_environment
from tfos.errors import ConfigError, InsufficientExecutorsError
from tfos.fault.drills.faults import Fault
from tfos.frameworks.contract import load_framework
from tfos.launcher.kubernetes import check_kubernetes
from tfos.launcher.role_memory import LEAST_MEMORY_BYTES
from tfos.launcher.spark_security import check_security
from tfos.topology import Role, describe_counts

__all__ = [
    "MasterKind",
    "Submission",
    "allocates_dynamically",
    "check_supported",
    "in_containers",
    "is_gang",
    "is_local",
    "master_kind",
    "resolve_master",
    "resolve_paths",
    "role_resources",
    "slots_needed",
    "task_failures",
]

MasterKind = Literal["local", "local-cluster", "standalone", "yarn", "k8s"]

_MASTERS: tuple[tuple[re.Pattern[str], MasterKind], ...] = (
    (re.compile(r"local(\[(?P<threads>\*|\d+)(?P<failures>,\d+)?\])?"), "local"),
    (
        re.compile(r"local-cluster\[\s*(?P<executors>\d+)\s*,\s*(?P<cores>\d+)\s*,\s*\d+\s*\]"),
        "local-cluster",
    ),
    (re.compile(r"spark://\S+:\d+(,\S+:\d+)*"), "standalone"),
    (re.compile(r"yarn"), "yarn"),
    (re.compile(r"k8s://\S+"), "k8s"),
)
_INSTEAD = {
    "memory": "use --spark-conf spark.executor.memory=... (with local: spark.driver.memory)",
    "gpus": "roles see the GPUs that CUDA_VISIBLE_DEVICES names on their hosts, none without it",
}
_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_Section = TypeVar("_Section", bound=BaseModel)
_RELATIVE_FILE_URL = re.compile(r"file:(?://)?(?!/)(.+)")


@dataclass(frozen=True)
class Submission:
    """What the driver is told, kept in a 0600 file that only lives as long as the run.

    Parameters
    ----------
    app
        Absolute path of the application file.
    job_class
        Name of the Job class in it; None when it defines exactly one.
    config
        The resolved `JobConfig`, as JSON.
    pid_file
        Where the driver's Python process writes its pid first of all.
    result_file
        Where the driver writes the run's record (`tfos.launcher.result.RunResult`) at the end.
    registry_file
        Where the driver notes its run's place in an external ZooKeeper: readable by the user alone.
        Where there is a `runs_root`, it does so there.
    submitted_at
        When, in seconds since the epoch: ``--timeout`` begins.
    client_pid, client_start_s
        The submitting process and its start (`psutil.Process.create_time`, seconds): when that
        process is gone the driver ends the run. None for a driver on another host.
    tag
        The YARN tag of this submission alone; None where its client follows it, and off YARN.
    runs_root
        Where such a driver leaves the run's record; see `tfos.launcher.run_directory`.
    """

    app: str
    job_class: str | None
    config: Mapping[str, Any]
    pid_file: str
    result_file: str
    registry_file: str
    submitted_at: float
    client_pid: int | None = None
    client_start_s: float | None = None
    tag: str | None = None
    runs_root: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document the driver reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Submission:
        """Read back what `to_json` wrote; raises TypeError on other fields."""
        return cls(**data)

    @property
    def job_config(self) -> JobConfig:
        """The configuration, validated again; raises `pydantic.ValidationError` if damaged."""
        return JobConfig.model_validate(dict(self.config))


def master_kind(master: str) -> MasterKind:
    """Return which sort of cluster a Spark master names; raises ConfigError on an unknown one."""
    return _match(master)[1]


def is_local(master: str) -> bool:
    """Say whether driver and executors all run on this machine because of `master`'s form."""
    return master_kind(master) in ("local", "local-cluster")


def in_containers(master: str) -> bool:
    """Say whether each executor gets a container, of the size that its role needs."""
    return master_kind(master) in ("yarn", "k8s")


def _match(master: str) -> tuple[re.Match[str], MasterKind]:
    for pattern, kind in _MASTERS:
        if match := pattern.fullmatch(master.strip()):
            return match, kind
    raise ConfigError(
        f"--master is {master!r}: expected local, local[N], local-cluster[N,CORES,MB], "
        "spark://HOST:PORT, yarn or k8s://URL"
    )


def role_resources(config: JobConfig) -> dict[Role, tuple[int, RoleResources]]:
    """Return how many tasks of each role the architecture has, and what each may use."""
    specs = load_framework(config.arch).roles(config.roles)
    return {spec.role: (spec.count, getattr(config.roles, spec.role.value)) for spec in specs}


def is_gang(config: JobConfig) -> bool:
    """Whether the roles start all together, as one barrier stage of Spark."""
    return any(spec.gang for spec in load_framework(config.arch).roles(config.roles))


def allocates_dynamically(conf: Mapping[str, str], *, unset: bool) -> bool:
    """Return Spark's ``spark.dynamicAllocation.enabled``; `unset` where it is not in `conf`."""
    value = conf.get("spark.dynamicAllocation.enabled", str(unset))
    return value.strip().lower() == "true"


def slots_needed(config: JobConfig) -> int:
    """Return how many Spark tasks run at once: every role is one task for the whole run."""
    return sum(count for count, _ in role_resources(config).values())


def task_failures(config: JobConfig) -> int:
    """Return how often Spark may see one task fail: as often as tfos restarts, and once more."""
    return config.supervision.max_restarts + 1


def resolve_master(
    master: str,
    slots: int,
    *,
    cpus: int | None = None,
    cpus_per_task: int = 1,
    failures: int | None = None,
) -> str:
    """Return the master to submit to: ``local`` and ``local[*]`` get room for every role.

    Parameters
    ----------
    master
        As the user gave it.
    slots
        Tasks that must run at once.
    cpus
        CPUs of this machine; None to ask it.
    cpus_per_task
        ``spark.task.cpus``.
    failures
        How often a task may fail on a local master that does not say so itself; there
        ``spark.task.maxFailures`` counts for nothing. None leaves it to Spark, which takes 1.

    Raises
    ------
    InsufficientExecutorsError
        If the master says itself that it has fewer slots.
    ConfigError
        If it is no Spark master.
    """
    match, kind = _match(master)
    if kind == "local":
        threads = match["threads"]
        limit = "" if failures is None else f",{failures}"
        if threads in (None, "*"):
            count = max(cpus or os.cpu_count() or 1, slots * cpus_per_task)
            return f"local[{count}{match['failures'] or limit}]"
        _check_slots(master, slots, int(threads) // cpus_per_task, f"local[{slots}] or local")
        return f"local[{threads}{match['failures'] or limit}]"
    if kind == "local-cluster":
        available = int(match["executors"]) * (int(match["cores"]) // cpus_per_task)
        _check_slots(master, slots, available, f"local-cluster[{slots},{cpus_per_task},1024]")
    return master.strip()


def _check_slots(master: str, needed: int, available: int, better: str) -> None:
    if available < needed:
        raise InsufficientExecutorsError(
            f"{needed} roles need {needed} task slots at once, --master {master} has {available}: "
            f"use --master {better}, or fewer --num-workers or --num-ps",
            needed=needed,
            available=available,
        )


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
    kind = master_kind(config.spark.master)
    if is_gang(config):
        _check_gang(config)
    _check_drill(config)
    _check_placement(config, kind)
    check_security(config.spark, kind)
    check_environment(parse_environment(config.spark.env), kind)
    if kind == "k8s":
        check_kubernetes(config.spark)
    if not dry_run and config.spark.deploy_mode == "cluster" and kind != "yarn":
        raise _unavailable(
            f"--deploy-mode cluster on {config.spark.master}",
            "use client, or --dry-run to see the command",
        )
    if not dry_run and kind == "k8s":
        raise _unavailable(
            "running on Kubernetes", "use --dry-run to see the command, or another master"
        )


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


def _check_placement(config: JobConfig, kind: MasterKind) -> None:
    spark = config.spark
    if spark.deploy_mode == "cluster" and is_local(spark.master):
        raise ConfigError(
            f"--deploy-mode cluster needs a cluster: --master {spark.master} runs everything on "
            "this machine; use --deploy-mode client"
        )
    for option, given in (
        ("--queue", spark.queue),
        ("--priority", spark.priority),
        ("--tags", spark.tags or None),
    ):
        if given is not None and kind != "yarn":
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
    if in_containers(spark.master):
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


def resolve_paths(config: JobConfig, directory: str) -> JobConfig:
    """Return `config` with its relative local paths made absolute from `directory`.

    Processes on other hosts and in other directories read them; URLs stay as they are. Every
    setting marked with `tfos.config.LOCATION` is one; resolving twice changes nothing.
    """
    return _resolved(config, directory)


def _resolved(section: _Section, directory: str) -> _Section:
    resolved: dict[str, Any] = {}
    for name, setting in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            resolved[name] = _resolved(value, directory)
        elif LOCATION in setting.metadata and value is not None:
            resolved[name] = _absolute(value, directory)
    return section.model_copy(update=resolved)


def _absolute(path: str, directory: str) -> str:
    relative = _RELATIVE_FILE_URL.fullmatch(path)
    path = relative[1] if relative else path
    if _URL.match(path):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ConfigError(f"{path}: {expanded.partition('/')[0]} names no home directory here")
    return os.path.normpath(os.path.join(directory, expanded))
