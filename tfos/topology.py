"""Name the parts of a training cluster: roles, task keys, endpoints, cluster specs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = [
    "ClusterSpec",
    "Endpoint",
    "Life",
    "Role",
    "RoleSpec",
    "TaskKey",
    "describe_counts",
    "describe_keys",
]

_TASK_KEY = re.compile(r"(?P<role>[a-z][a-z_]*)-(?P<index>0|[1-9][0-9]*)")
_LIFE = re.compile(r"(?P<key>[^.]+)\.g(?P<generation>\d+)\.r(?P<respawn>\d+)")


class Role(str, Enum):
    """What a training process does."""

    CHIEF = "chief"
    WORKER = "worker"
    PS = "ps"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, order=True)
class TaskKey:
    """One role instance, written ``role-index`` (``worker-3``)."""

    role: Role
    index: int

    def __str__(self) -> str:
        return f"{self.role.value}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> TaskKey:
        """Read ``role-index`` back.

        Raises
        ------
        ValueError
            If `text` is not of that form or names an unknown role.
        """
        match = _TASK_KEY.fullmatch(text)
        if match is None:
            raise ValueError(f"not a task key: {text!r} (expected role-index, such as worker-3)")
        return cls(Role(match["role"]), int(match["index"]))


class Life(NamedTuple):
    """One life of a role's training process, written ``worker-3.g2.r0``.

    Parameters
    ----------
    key
        The role.
    generation
        The incarnation of the whole cluster, counted from 1.
    respawn
        How often the role's process has been replaced within that generation, 0 at first.
    """

    key: TaskKey
    generation: int
    respawn: int

    def __str__(self) -> str:
        return f"{self.key}.g{self.generation}.r{self.respawn}"

    @classmethod
    def parse(cls, text: str) -> Life:
        """Read back what `str` wrote; raises ValueError on anything else."""
        match = _LIFE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a life: {text!r} (expected such as worker-3.g2.r0)")
        return cls(TaskKey.parse(match["key"]), int(match["generation"]), int(match["respawn"]))


class Endpoint(NamedTuple):
    """A host and a TCP port, written ``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``host:port`` back.

        Raises
        ------
        ValueError
            If the port is missing, not a number or out of range.
        """
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"not an endpoint: {text!r} (expected host:port)")
        return cls(host, int(port))


@dataclass(frozen=True)
class RoleSpec:
    """How many tasks a role has, what each may use and which DataFrames feed it.

    Parameters
    ----------
    count
        Number of tasks, 1 or more.
    trains
        Whether the process runs ``Job.train`` and ends by itself; the others serve until stopped.
    respawns
        Whether a process of this role that dies is replaced in place while all others go on.
        Otherwise its death ends the generation: all start again from the latest checkpoint.
    gang
        Whether Spark starts all its tasks together or none, in one barrier stage; such a stage is
        lost whole when one of its tasks is, and submitted again.
    cores
        CPU cores of each task; None: as many as TensorFlow finds.
    memory_bytes
        All the memory a task may use, JVM and training process together; None: no limit of its own.
    gpus
        GPUs of each task.
    """

    role: Role
    count: int
    trains: bool
    respawns: bool = False
    gang: bool = False
    cores: int | None = None
    memory_bytes: int | None = None
    gpus: int = 0

    @property
    def keys(self) -> tuple[TaskKey, ...]:
        """The task keys of this role, by index."""
        return tuple(TaskKey(self.role, i) for i in range(self.count))


@dataclass(frozen=True)
class ClusterSpec:
    """The endpoints of every task of one generation, by role, in index order."""

    endpoints: Mapping[TaskKey, Endpoint]

    @property
    def by_role(self) -> dict[str, list[str]]:
        """``{"worker": ["host:port", ...], ...}``: the form TensorFlow's ClusterSpec takes."""
        spec: dict[str, list[str]] = {}
        for key in sorted(self.endpoints):
            spec.setdefault(key.role.value, []).append(str(self.endpoints[key]))
        return spec

    def keys(self, role: Role) -> tuple[TaskKey, ...]:
        """Return the task keys of one role, by index."""
        return tuple(key for key in sorted(self.endpoints) if key.role == role)


_NOUNS = {Role.CHIEF: "chief", Role.WORKER: "worker", Role.PS: "parameter server"}


def describe_counts(counts: Mapping[Role, int]) -> str:
    """Write how many of each role there are, such as "1 chief, 2 workers"."""
    return ", ".join(f"{n} {_NOUNS[role]}{'s' if n != 1 else ''}" for role, n in counts.items())


def describe_keys(keys: Iterable[TaskKey], limit: int = 10) -> str:
    """Write task keys for a message: sorted, at most `limit` of them, then how many more."""
    names = [str(key) for key in sorted(keys)]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
