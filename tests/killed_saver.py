"""Save checkpoints in another process without end, and kill it: what is left must be whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tfos.fault.checkpoints import CheckpointStore

__all__ = ["run_killed_saver"]


def run_killed_saver(url: str, files: int, killed_after_s: float) -> tuple[int, list[int]]:
    """Let a saver of so many files run for a while, and kill it.

    Returns
    -------
    tuple of int and list of int
        The step it resumed from, and the steps it said were complete.
    """
    argv = [sys.executable, __file__, url, str(files)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as saver:
        resumed = int(saver.stdout.readline())
        time.sleep(killed_after_s)
        saver.kill()
        return resumed, [int(line) for line in saver.stdout.read().split()]


def save_without_end(url: str, files: int) -> None:
    """Save one checkpoint after the other, in the background, and say when each is complete."""
    store = CheckpointStore(url, "fm", keep=2)
    found = store.latest()
    step = found.step if found else 0

    def write(directory: str) -> None:
        for number in range(files):
            Path(directory, f"data-{number}").write_bytes(b"%d" % step + os.urandom(50_000))

    print(step, flush=True)
    while True:
        step += 1
        store.begin_save(
            step,
            1,
            write,
            {0: (0, step)},
            {"step": step},
            on_complete=lambda info: print(info.step, flush=True),
        )


if __name__ == "__main__":
    save_without_end(sys.argv[1], int(sys.argv[2]))
