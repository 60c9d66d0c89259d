"""Run a command whose whole process group ends with this process, however this process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import tfos
from tfos.fault.processes import guard

__all__ = ["leashed"]

_KILL_TIMEOUT_S = 10.0


@contextlib.contextmanager
def leashed(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: IO[bytes] | int,
    grace_s: float = 0.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` in a session of its own for as long as the block lasts.

    However the block is left, nothing of the command's process group runs afterwards; a SIGKILL of
    this process ends it too. Standard input is empty.

    Parameters
    ----------
    argv
        The command and its arguments.
    env
        Its whole environment.
    cwd
        Its working directory.
    output
        Where its standard output and errors go; ``subprocess.PIPE`` to read them here.
    grace_s
        How long a command that is left running may take to clean up after a SIGINT.

    Yields
    ------
    subprocess.Popen[bytes]
        The running command. Its group's number is its pid.
    """
    lifeline, held = os.pipe()
    try:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, *argv],
                env=_environment(env, lifeline),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        finally:
            os.close(lifeline)
        try:
            yield process
        finally:
            _end(process, grace_s)
    finally:
        os.close(held)


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    # Until its lifeline is closed the guard lives and keeps the group's number from being reused.
    with contextlib.suppress(ProcessLookupError):
        if grace_s and process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_KILL_TIMEOUT_S)
    if process.stdout is not None:
        process.stdout.close()


def _environment(env: Mapping[str, str], lifeline: int) -> dict[str, str]:
    # The working directory is not this one's, and tfos may be imported from here alone.
    root = str(Path(tfos.__file__).parent.parent)
    return {
        **env,
        "PYTHONPATH": os.pathsep.join(filter(None, (env.get("PYTHONPATH"), root))),
        guard.LIFELINE_FD_VARIABLE: str(lifeline),
        guard.SUPERVISOR_PID_VARIABLE: str(os.getpid()),
    }


def _main() -> None:
    guard.install()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    _main()
