"""Run a command that cannot outlive the process at the other end of standard input. Standalone.

``python -I -S lifeline.py DIRECTORY COMMAND...`` runs COMMAND until it ends, and exits as it did.
A byte on standard input kills it; the end of standard input, which comes with the death of the
process that holds the pipe however it dies, kills it and removes DIRECTORY.

A parent-death signal alone would not do: it follows the thread that forked, and the thread that
starts a server may end before it. This process forks from its only thread, so here it is safe, and
covers the death of this process itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def on_line(directory: str, command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` so; its parent holds standard input."""
    return [sys.executable, "-I", "-S", __file__, directory, *command]


def main(directory: str, command: list[str]) -> int:
    """Run `command`; return the exit code to end with."""
    child = os.fork()
    if child == 0:
        _become(command)
    line = _Line(child)
    threading.Thread(target=line.follow, daemon=True).start()
    # WNOWAIT keeps the pid taken until the line is told not to kill it any more.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    cut = line.let_go()
    _, status = os.waitpid(child, 0)
    if cut:
        shutil.rmtree(directory, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: list[str]) -> None:
    """Turn the forked child into `command`; never returns."""
    try:
        if sys.platform == "linux":
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


class _Line:
    """Standard input, followed to its byte or its end."""

    def __init__(self, child: int) -> None:
        self._child = child
        self._lock = threading.Lock()
        self._ended = False
        self._cut = False

    def follow(self) -> None:
        cut = os.read(0, 1) == b""
        with self._lock:
            self._cut = cut
            if not self._ended:
                os.kill(self._child, signal.SIGKILL)

    def let_go(self) -> bool:
        """Kill no more; return whether the line was cut."""
        with self._lock:
            self._ended = True
            return self._cut


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
