"""Save checkpoints in another process without end, and kill it: what is left must be whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tfos.fault.checkpoints.store import CheckpointStore

__all__ = ["kill_savers"]


def kill_savers(
    url: str,
    *,
    kills: int,
    files: int,
    within_s: float,
    unfinished: Callable[[], bool],
    directory: Path,
) -> int:
    """Kill one saver after the other, and look each time that what it said is saved is whole.

    They save the job "fm" at `url`. Every second one is killed at a random moment within `within_s`
    seconds, and the others as soon as `unfinished` sees a save under way: no machine is too fast or
    too slow for that.

    Returns
    -------
    int
        The last step that was saved.
    """
    store = CheckpointStore(url, "fm", keep=2)
    chance = random.Random(5)
    acknowledged, cut_short = 0, 0
    for kill in range(kills):
        at_sight = unfinished if kill % 2 else None
        after_s = chance.uniform(0, within_s)
        resumed, told = run_killed_saver(url, files, after_s, at_sight, directory)
        assert resumed >= acknowledged
        acknowledged = max([resumed, *told])
        cut_short += unfinished()
        loaded = store.latest_loaded(str(directory))
        if loaded is None:
            assert acknowledged == 0
            continue
        # What was told to be saved is there; one more may be, whose word was lost.
        assert loaded.info.step in (acknowledged, acknowledged + 1)
        assert loaded.info.metadata == {"step": loaded.info.step}
        assert len(loaded.info.files) == files
        acknowledged = loaded.info.step
    print(f"{acknowledged} saves, {cut_short} of {kills} kills left something unfinished")
    assert acknowledged > 0
    assert cut_short >= max(1, kills // 4), "the kills came at idle moments: nothing was proven"
    return acknowledged


def run_killed_saver(
    url: str,
    files: int,
    after_s: float,
    at_sight: Callable[[], bool] | None,
    directory: Path,
) -> tuple[int, list[int]]:
    """Let a saver run, and kill it: the step it resumed from, and those it said were complete."""
    argv = [sys.executable, __file__, url, str(files)]
    env = {**os.environ, "TMPDIR": str(directory)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as saver:
        try:
            resumed = int(saver.stdout.readline())
            told = []
            if at_sight is not None:
                # What the one before left is gone once a save is complete.
                told.append(int(saver.stdout.readline()))
                deadline = time.monotonic() + 60
                while not at_sight():
                    assert time.monotonic() < deadline, "no save was seen under way for 60 s"
            else:
                time.sleep(after_s)
        finally:
            saver.kill()
        return resumed, told + [int(line) for line in saver.stdout.read().split()]


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
