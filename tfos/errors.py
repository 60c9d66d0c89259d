"""Every public error of tfos, and the exit code each one ends a run with.

Messages say what failed, who (task key), expected against found, and which setting to change.
Every error survives a pickle round trip, because PySpark and notebooks pickle exceptions.
"""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from tfos.fault.failures.record import Failure
    from tfos.launcher.handover.result import RunResult

__all__ = [
    "AlreadyRunningError",
    "CheckpointCorruptError",
    "CheckpointError",
    "CheckpointUnreadableError",
    "ConfigError",
    "DivergedError",
    "EmptyDataError",
    "ExitCode",
    "FeedError",
    "HorovodError",
    "InfrastructureError",
    "InsufficientExecutorsError",
    "InterruptedRunError",
    "JobDefinitionError",
    "LaunchError",
    "NotFedError",
    "NullValueError",
    "PortUnavailableError",
    "RendezvousClosedError",
    "RendezvousConnectionError",
    "RendezvousError",
    "RendezvousTimeoutError",
    "RestartLimitError",
    "RunTimeoutError",
    "SchemaMismatchError",
    "SessionLostError",
    "SpoolFullError",
    "TfosError",
    "UnsupportedTypeError",
    "WorkerFailedError",
]


class ExitCode(IntEnum):
    """Exit codes of ``pl_submit``: stable, for schedulers to branch on."""

    OK = 0
    """The run finished."""
    INTERNAL = 1
    """A defect of tfos itself: an error it did not foresee."""
    CONFIG = 2
    """Bad option, configuration, application file or data type: mend it, a retry cannot help."""
    RESOURCES = 3
    """The cluster cannot hold the roles asked for."""
    USER_CODE = 4
    """``pre_train`` or ``train`` failed, or the data did: see the traceback in the report."""
    INFRASTRUCTURE = 5
    """A process, ZooKeeper, a disk or the cluster failed and retries did not help."""
    TIMEOUT = 6
    """``--timeout`` ran out."""
    ALREADY_RUNNING = 7
    """Another run of the same job name is active."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM ended the run."""


class TfosError(Exception):
    """Base of every tfos error.

    Parameters
    ----------
    message
        One line: what failed, who, expected against found, and what to change.
    **fields
        Structured attributes of the subclass, kept as attributes of the same name.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    result: RunResult | None = None
    """The record of the run that this error ended; None where none did."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.__dict__.update(fields)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ would call the class with positional args only and drop the fields.
        return copyreg.__newobj__, (type(self), self.message), self.__dict__  # type: ignore[attr-defined]


class ConfigError(TfosError, ValueError):
    """An option, a configuration value or an environment is wrong."""

    exit_code = ExitCode.CONFIG


class JobDefinitionError(ConfigError):
    """The application file holds no usable ``Job``, or ``pre_train`` returned no DataFrame."""


class LaunchError(TfosError):
    """The run could not be started."""

    exit_code = ExitCode.INFRASTRUCTURE


class InsufficientExecutorsError(LaunchError):
    """The cluster has fewer task slots than roles (attributes ``needed`` and ``available``)."""

    exit_code = ExitCode.RESOURCES
    needed: int
    available: int


class PortUnavailableError(LaunchError):
    """A role host could not reserve a port."""


class InfrastructureError(TfosError):
    """Spark, the network or a disk failed underneath a run."""

    exit_code = ExitCode.INFRASTRUCTURE


class HorovodError(TfosError):
    """Horovod could not be built, installed or run (attribute ``last_lines``: said at the end)."""

    exit_code = ExitCode.INFRASTRUCTURE
    last_lines: str = ""


class RendezvousError(TfosError):
    """The registry could not do what was asked."""

    exit_code = ExitCode.INFRASTRUCTURE


class RendezvousTimeoutError(RendezvousError, TimeoutError):
    """A deadline passed while roles were missing (attribute ``missing``: task keys as text)."""

    missing: Sequence[str]


class RendezvousClosedError(RendezvousError):
    """The run was stopped or its tree removed (attribute ``reason``)."""

    reason: str


class RendezvousConnectionError(RendezvousError, ConnectionError):
    """The registry cannot be reached."""


class SessionLostError(RendezvousError):
    """The registry session expired: this process's ephemeral nodes are gone."""


class FeedError(TfosError):
    """Data could not be brought from the DataFrame to TensorFlow."""

    exit_code = ExitCode.USER_CODE


class UnsupportedTypeError(FeedError, TypeError):
    """A column's type has no TensorFlow counterpart (attributes ``column`` and ``type_name``)."""

    exit_code = ExitCode.CONFIG
    column: str
    type_name: str


class SchemaMismatchError(FeedError, ValueError):
    """Columns asked for, or columns of two DataFrames, do not fit each other."""

    exit_code = ExitCode.CONFIG


class NotFedError(SchemaMismatchError):
    """A dataset of that name is fed to other processes than this one."""


class NullValueError(FeedError):
    """A column holds nulls, which its policy refuses (attributes ``column`` and ``rows``)."""

    column: str
    rows: int


class EmptyDataError(FeedError):
    """The DataFrame to train on has no rows."""


class DivergedError(TfosError):
    """Training gave NaN or an infinity (attributes ``step`` and ``names``: metrics, variables)."""

    exit_code = ExitCode.USER_CODE
    step: int
    names: Sequence[str]


class SpoolFullError(FeedError):
    """The spool has no room left (attributes ``path`` and ``limit_bytes``)."""

    exit_code = ExitCode.INFRASTRUCTURE
    path: str
    limit_bytes: int


class WorkerFailedError(TfosError):
    """Roles failed and the run ended (attribute ``failures``, the cause first)."""

    exit_code = ExitCode.USER_CODE
    failures: Sequence[Failure]

    def __init__(
        self, message: str, *, exit_code: ExitCode = ExitCode.USER_CODE, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        # Whether a death is the user's code or the infrastructure is known per failure.
        self.__dict__["exit_code"] = exit_code


class RestartLimitError(WorkerFailedError):
    """Roles kept failing until the restart budget was spent."""


class RunTimeoutError(TfosError, TimeoutError):
    """The run did not end within ``--timeout`` (attribute ``timeout_s``)."""

    exit_code = ExitCode.TIMEOUT
    timeout_s: float


class InterruptedRunError(TfosError):
    """The run was interrupted by a signal (attribute ``signal_name``)."""

    exit_code = ExitCode.INTERRUPTED
    signal_name: str


class AlreadyRunningError(TfosError):
    """Another run of this job name holds the lock (attribute ``holder``)."""

    exit_code = ExitCode.ALREADY_RUNNING
    holder: str


class CheckpointError(TfosError):
    """A checkpoint or a model could not be written or read."""

    exit_code = ExitCode.INFRASTRUCTURE


class CheckpointFencedError(CheckpointError):
    """A process of an earlier generation saved while a later one is live: it should have ended."""


class CheckpointCorruptError(CheckpointError):
    """A checkpoint's files do not match its manifest (attribute ``path``)."""

    path: str


class CheckpointUnreadableError(CheckpointError):
    """A checkpoint that this user may not read (attribute ``path``)."""

    path: str
