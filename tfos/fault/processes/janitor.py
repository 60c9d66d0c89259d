"""Remove a role host's directories when it ends, even by SIGKILL.

A role host is a Spark Python worker, which Spark kills without running its ``finally`` when a task
is cancelled or fails. A tiny forked process waits for the host's end on a pipe and tidies up.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tfos.fault.processes.guard import close_all_but

__all__ = ["removed_at_end"]

_AGAIN_AFTER_S: Final = 1.0


@contextmanager
def removed_at_end(directories: Sequence[Path]) -> Iterator[None]:
    """Remove `directories` when the block ends, or this process does. They need not exist yet.

    Enter it before this process has threads: it forks. Blocks for milliseconds.
    """
    reading, writing = os.pipe()
    try:
        _fork_janitor(reading, directories)
    finally:
        os.close(reading)
    try:
        yield
    finally:
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
        os.close(writing)


def _fork_janitor(reading: int, directories: Sequence[Path]) -> None:
    # Forked twice: nobody has to reap the janitor, least of all Spark's worker, which is reused.
    between = os.fork()
    if between == 0:
        try:
            if os.fork() == 0:
                _tidy_after(reading, directories)
        finally:
            os._exit(0)
    os.waitpid(between, 0)


def _tidy_after(reading: int, directories: Sequence[Path]) -> None:
    """Wait for the pipe's end and remove the directories. Never returns."""
    try:
        # Away from the group that Spark's daemon kills as a whole, and deaf to polite signals.
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        close_all_but(reading)
        while os.read(reading, 1):
            pass
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
        # A training process that was writing while its own guard ended it may have been quicker.
        if any(directory.exists() for directory in directories):
            time.sleep(_AGAIN_AFTER_S)
            for directory in directories:
                shutil.rmtree(directory, ignore_errors=True)
    finally:
        os._exit(0)
