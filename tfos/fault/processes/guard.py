"""Tie a training process's whole group to the life of the host that supervises it.

Two lines of defence, both set up by the training process itself as its very first act:

- the parent-death signal (Linux), which ends the training process alone;
- the *guard*, a tiny forked process in the same group that waits on a pipe whose only write end
  the host holds. End of file there means that the host is gone, however it went, and the guard
  kills the group: the training process, and everything it started that stayed in its group.

Nothing here imports more than the standard library: the fork must come before heavy imports.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping
from typing import Final

from tfos.errors import InfrastructureError

__all__ = ["LIFELINE_FD_VARIABLE", "SUPERVISOR_PID_VARIABLE", "close_all_but", "install"]

LIFELINE_FD_VARIABLE: Final = "TFOS_LIFELINE_FD"
"""Environment variable with the number of the inherited pipe that ends with the host."""
SUPERVISOR_PID_VARIABLE: Final = "TFOS_SUPERVISOR_PID"
"""Environment variable with the host's process id."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


def install(
    lifeline_fd: int | None = None, *, environ: MutableMapping[str, str] | None = None
) -> bool:
    """Make this process and its group die with the host that started it.

    Runs in the training process, once, before any thread exists and before heavy imports; takes
    a few milliseconds. The supervisor's two variables are removed from `environ`, so that what
    this process starts does not take them for its own.

    Parameters
    ----------
    lifeline_fd
        The read end of the host's pipe; by default what ``TFOS_LIFELINE_FD`` says.
    environ
        The process environment by default.

    Returns
    -------
    bool
        False when no supervisor started this process (nothing is done then), else True.

    Raises
    ------
    InfrastructureError
        If this process does not lead its own process group, or the guard could not be forked.
    """
    environ = os.environ if environ is None else environ
    text = environ.pop(LIFELINE_FD_VARIABLE, None)
    supervisor_pid = environ.pop(SUPERVISOR_PID_VARIABLE, None)
    if lifeline_fd is None:
        if text is None:
            return False
        lifeline_fd = int(text)
    if os.getpgrp() != os.getpid():
        raise InfrastructureError(
            f"process {os.getpid()} is to be guarded but does not lead its process group "
            f"({os.getpgrp()}): start it as a tfos.fault.processes.managed.ManagedProcess, "
            "which leads one"
        )
    _die_with_parent(None if supervisor_pid is None else int(supervisor_pid))
    _fork_guard(lifeline_fd)
    os.close(lifeline_fd)
    return True


def _die_with_parent(supervisor_pid: int | None) -> None:
    # The signal follows the thread that forked: the supervisor forks from one that outlives us.
    if not sys.platform.startswith("linux"):
        return
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    # The host may have died before the line above took effect.
    if supervisor_pid is not None and os.getppid() != supervisor_pid:
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _prctl(option: int, argument: ctypes.c_ulong | ctypes.c_char_p) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise InfrastructureError(f"prctl({option}) failed: {os.strerror(code)}")


def _fork_guard(lifeline_fd: int) -> None:
    # Blocked, not ignored: a SIGTERM to the group must not end the guard even in its first moments,
    # and the mask is inherited where a handler would have to be set after the fork.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        # Forked twice: a guard that were our child could make user code hang in os.wait().
        between = os.fork()
        if between == 0:
            status = 1
            try:
                if os.fork() == 0:
                    _stand_guard(lifeline_fd)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(between, 0)
    except OSError as error:
        raise InfrastructureError(
            f"the guard of training process {os.getpid()} could not be forked: {error}; "
            "raise the limit on processes (ulimit -u)"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if status != 0:
        raise InfrastructureError(
            f"the guard of training process {os.getpid()} could not be forked: "
            "raise the limit on processes (ulimit -u)"
        )


def _stand_guard(lifeline_fd: int) -> None:
    """Wait for the host's end, then kill the group this process is in. Never returns."""
    try:
        if sys.platform.startswith("linux"):
            _prctl(_PR_SET_NAME, ctypes.c_char_p(b"tfos-guard"))
        close_all_but(lifeline_fd)
        while os.read(lifeline_fd, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:
        os._exit(1)


def close_all_but(kept_fd: int) -> None:
    """Close every descriptor of this process except one; for a forked process that only waits."""
    # The guard outlives the training process for a moment: held open here, its output pipe and
    # control channel would not reach their end.
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else range(1024):
        fd = int(name)
        if fd != kept_fd:
            try:
                os.close(fd)
            except OSError:
                continue  # the listing's own descriptor, closed by now
