"""Say which tasks of Spark a run needs, and what each may use. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tfos.config import JobConfig, RoleResources
from tfos.frameworks.contract import load_framework
from tfos.topology import Role

__all__ = [
    "allocates_dynamically",
    "is_gang",
    "role_resources",
    "slots_needed",
    "task_failures",
]


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
