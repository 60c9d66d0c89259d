"""Describe how a role ended: the failure record, and the outcome that carries it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tfos.errors import CheckpointError, CheckpointFencedError, ExitCode, TfosError
from tfos.progress import Notice
from tfos.topology import TaskKey

__all__ = [
    "Cause",
    "Failure",
    "Outcome",
    "arrange_stacks",
    "cause_of",
    "container_logs",
    "first_cause",
]


class Cause(str, Enum):
    """Whose failure it was; decides the exit code and whether a restart can help."""

    USER_CODE = "user_code"
    """The user's code raised or exited."""
    PROCESS_DEATH = "process_death"
    """A training process died by a signal or without saying why."""
    DATA = "data"
    """The data could not be fed: a null, a type, no rows."""
    INFRASTRUCTURE = "infrastructure"
    """A port, a disk, Spark, ZooKeeper or the network."""
    STORAGE = "storage"
    """A checkpoint or the model could not be written or read: a restart would meet the same."""
    STALLED = "stalled"
    """A training process gave no sign of life, or made no progress, for as long as allowed."""
    PEER_LOST = "peer_lost"
    """Another role could not be reached: somebody else's failure is most likely the cause."""
    CONFIG = "config"
    """What was asked for cannot work."""
    MEMORY = "memory"
    """The cluster killed a container that used more memory than its role was given."""
    TIMEOUT = "timeout"
    """The time that the run was given has passed."""
    INTERRUPTED = "interrupted"
    """Somebody asked for the end."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a run that this cause ended."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Cause.USER_CODE: ExitCode.USER_CODE,
    Cause.PROCESS_DEATH: ExitCode.INFRASTRUCTURE,
    Cause.DATA: ExitCode.USER_CODE,
    Cause.INFRASTRUCTURE: ExitCode.INFRASTRUCTURE,
    Cause.STORAGE: ExitCode.INFRASTRUCTURE,
    Cause.STALLED: ExitCode.INFRASTRUCTURE,
    Cause.PEER_LOST: ExitCode.INFRASTRUCTURE,
    Cause.CONFIG: ExitCode.CONFIG,
    Cause.MEMORY: ExitCode.RESOURCES,
    Cause.TIMEOUT: ExitCode.TIMEOUT,
    Cause.INTERRUPTED: ExitCode.INTERRUPTED,
}


def cause_of(error: TfosError) -> Cause:
    """Return whose failure one of tfos's own errors is."""
    if isinstance(error, CheckpointError) and not isinstance(error, CheckpointFencedError):
        return Cause.STORAGE
    causes = {ExitCode.CONFIG: Cause.CONFIG, ExitCode.USER_CODE: Cause.DATA}
    return causes.get(error.exit_code, Cause.INFRASTRUCTURE)


@dataclass(frozen=True)
class Failure:
    """One observed failure of one role.

    Parameters
    ----------
    key
        The role, as text (``worker-3``), or ``driver``.
    cause
        Whose failure it was.
    message
        One line: the error's type and text, or how the process ended.
    time
        When it was observed, seconds since the epoch on its own host.
    host, pid
        Where; the pid is the training process's, 0 when there was none.
    exit_code, signal_name
        How the process ended, where it did.
    step
        The last step reported, -1 before the first.
    traceback
        The user's traceback, its own frames only where there are any.
    last_lines
        The last lines the training process wrote.
    stacks
        Every thread's stack, where the process crashed in native code or was killed for a stall.
    hint
        What to do about it; empty when nothing sensible can be said.
    logs
        URL of the output of its container; empty where there is none. See `container_logs`.
    lasting
        Whether its cause is there for the next process as well: a mistake in the code, a full
        disk. Starting again does not help then.
    """

    key: str
    cause: Cause
    message: str
    time: float
    host: str = ""
    pid: int = 0
    exit_code: int | None = None
    signal_name: str | None = None
    step: int = -1
    traceback: str = ""
    last_lines: Sequence[str] = field(default_factory=tuple)
    stacks: str = ""
    hint: str = ""
    logs: str = ""
    lasting: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a role ended in a generation: done (`failure` is None) or failed.

    Parameters
    ----------
    key
        The role.
    failure
        The record when it failed.
    done
        Without a failure: whether its process said that it ended well. One that was stopped neither
        is done nor failed.
    result
        What ``train`` returned, JSON values only; None from roles that ran no ``train``.
    metrics, step
        The last ones reported.
    rows
        Rows fed to the role, by dataset name.
    phases
        Seconds since the epoch at which the role entered each phase, by phase name.
    artifacts
        Where things are that the role read or wrote: ``resumed_from``, ``checkpoint``, ``model``.
    notices
        Its latest lines for the run's log.
    """

    key: TaskKey
    failure: Failure | None = None
    done: bool = True
    result: Any = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = -1
    rows: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


def container_logs(environ: Mapping[str, str]) -> str:
    """Return the URL at which YARN shows the output of the container with this environment.

    Empty for a process outside of YARN. The NodeManager serves it as long as the application runs.
    """
    names = ("NM_HOST", "NM_HTTP_PORT", "CONTAINER_ID", "USER")
    host, port, container, user = (environ.get(name, "") for name in names)
    if not (host and port and container and user):
        return ""
    return f"http://{host}:{port}/node/containerlogs/{container}/{user}"


def arrange_stacks(dump: str) -> str:
    """Put what tells most of `faulthandler`'s dump first: the signal, then the thread it struck.

    It writes threads newest first, so that the main one, which runs the user's code, comes last.
    """

    def rank(part: str) -> tuple[bool, bool]:
        return not part.startswith("Fatal"), not part.startswith("Current thread")

    return "\n\n".join(sorted(dump.strip().split("\n\n"), key=rank))


def first_cause(failures: Sequence[Failure]) -> Failure:
    """Return the failure that the others follow from: the first by time.

    A role that lost contact with a peer reports a consequence, even where its host's clock or the
    network made it the first to be heard.
    """
    return min(failures, key=lambda f: (f.cause is Cause.PEER_LOST, f.time))
