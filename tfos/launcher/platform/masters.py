"""Say what a Spark master is and has room for, and how many tasks a run needs. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal

from tfos.config import JobConfig, RoleResources
from tfos.errors import ConfigError, InsufficientExecutorsError
from tfos.frameworks.contract import load_framework
from tfos.topology import Role

__all__ = [
    "MasterKind",
    "allocates_dynamically",
    "in_containers",
    "is_gang",
    "is_local",
    "master_kind",
    "resolve_master",
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
