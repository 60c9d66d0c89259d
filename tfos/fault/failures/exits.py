"""Describe as a failure how a training process ended that did not say itself why."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tfos.fault.failures.error_text import last_error
from tfos.fault.failures.exhaustion import exhausted
from tfos.fault.failures.record import Cause, Failure, container_logs

if TYPE_CHECKING:
    from tfos.fault.processes.events import Exited

__all__ = ["failure_from_exit"]


def failure_from_exit(
    key: str, exited: Exited, *, host: str = "", step: int = -1, cause: Cause | None = None
) -> Failure:
    """Describe the end of a training process that did not say itself why it failed.

    Parameters
    ----------
    key
        The role, as text.
    exited
        How it ended.
    host
        Where.
    step
        The last step it reported, -1 for none.
    cause
        Whose failure it was. By default: the infrastructure's where the machine had run out of
        something, the process's death for a signal, the user's code for an exit code.
    """
    exit_code, signal_name, words = _describe_exit(exited.returncode)
    # One that something else killed may have reported a full disk before, and have gone on.
    ended_itself = 0 < exited.returncode < 128 or exited.returncode == -signal.SIGABRT
    scarce = exhausted(exited.last_lines) if ended_itself else None
    if cause is None and scarce is not None:
        cause = Cause.INFRASTRUCTURE
    if cause is None:
        # Shells and launchers pass a signal on as 128 and its number.
        died = signal_name is not None or exited.returncode > 128
        cause = Cause.PROCESS_DEATH if died else Cause.USER_CODE
    if exited.returncode == 0:
        words += " before it reported how training went"
    elif last_words := last_error(exited.last_lines):
        words += f": {last_words}"
    return Failure(
        key=key,
        cause=cause,
        message=f"the training process {words}",
        time=exited.time,
        host=host or os.uname().nodename,
        pid=exited.pid,
        exit_code=exit_code,
        signal_name=signal_name,
        step=step,
        last_lines=tuple(exited.last_lines),
        hint=scarce or _hint_for_exit(exited.returncode),
        logs=container_logs(os.environ),
        lasting=scarce is not None,
    )


def _describe_exit(returncode: int) -> tuple[int | None, str | None, str]:
    """Split `subprocess`'s return code into (exit code, signal name, words for people)."""
    if returncode >= 0:
        return returncode, None, f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return None, name, f"was killed by {name}"


def _hint_for_exit(returncode: int) -> str:
    """Say what an exit code or signal usually means and what to do; empty when unknown."""
    return _HINTS.get(returncode if returncode >= 0 else 128 - returncode, "")


_HINTS = {
    134: "it aborted (SIGABRT): look for an assertion of TensorFlow in its last lines",
    135: "it hit a bus error (SIGBUS): the disk or /dev/shm behind a mapped file may be full",
    137: "it was killed (SIGKILL), usually by the out-of-memory killer: give the role more memory "
    "or use a smaller batch_size or shuffle_rows",
    139: "it crashed in native code (SIGSEGV): look at the TensorFlow ops and libraries in use",
    143: "something outside tfos asked it to end (SIGTERM)",
}
