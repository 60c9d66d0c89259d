"""Check the installed Horovod by what it is for: two processes that reduce a number with Gloo."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tfos.errors import HorovodError
from tfos.frameworks.tensorflow.ring.placement import RankPlace
from tfos.frameworks.tensorflow.ring.store import RingStore
from tfos.horovod_build.leash import leashed

__all__ = ["check_allreduce"]

_RANKS = 2
_POLL_INTERVAL_S = 0.05
_LAST_LINES = 15


@dataclass(frozen=True)
class _Rank:
    number: int
    process: Popen[bytes]
    log: Path

    @property
    def last_words(self) -> str:
        return _last_words(self.log.read_bytes())


def check_allreduce(*, timeout_s: float = 60.0) -> float:
    """Start two ranks on this machine, let them reduce a number, and see that the sum is right.

    Blocks, at most `timeout_s` and the moments it takes to kill what it started. Nothing of it runs
    afterwards, however it ends.

    Parameters
    ----------
    timeout_s
        How long the ranks may take, TensorFlow's import included.

    Returns
    -------
    float
        The seconds it took.

    Raises
    ------
    HorovodError
        If a rank died, reduced to the wrong sum, or did not end in time.
    """
    began = time.monotonic()
    deadline = began + timeout_s
    with contextlib.ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="tfos-horovod-")))
        store = held.enter_context(contextlib.closing(RingStore("127.0.0.1")))
        ranks = [_start(held, number, store, directory) for number in range(_RANKS)]
        _await_all(ranks, deadline, timeout_s)
    return time.monotonic() - began


def _start(held: contextlib.ExitStack, number: int, store: RingStore, directory: Path) -> _Rank:
    log = directory / f"rank-{number}.log"
    output = held.enter_context(log.open("wb"))
    argv = [sys.executable, "-m", "tfos.horovod_build.allreduce_rank"]
    process = leashed(
        argv, env={**os.environ, **_environment(number, store)}, cwd=directory, output=output
    )
    return _Rank(number, held.enter_context(process), log)


def _environment(number: int, store: RingStore) -> dict[str, str]:
    """Return the environment that tells a rank its place and where the others are found."""
    place = RankPlace(number, _RANKS, number, _RANKS, 0, 1, "localhost")
    return {
        **place.environment(store.endpoint, "lo"),
        # A check must neither wait for nor fill a GPU that somebody uses.
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def _await_all(ranks: list[_Rank], deadline: float, timeout_s: float) -> None:
    while True:
        running = [rank for rank in ranks if rank.process.poll() is None]
        for rank in ranks:
            if rank.process.returncode:
                raise HorovodError(
                    f"Horovod's check failed: rank {rank.number} of {_RANKS} "
                    f"{_how(rank.process.returncode)}",
                    last_lines=rank.last_words,
                )
        if not running:
            return
        if time.monotonic() > deadline:
            names = ", ".join(str(rank.number) for rank in running)
            raise HorovodError(
                f"Horovod's check failed: rank {names} of {_RANKS} did not end within "
                f"{timeout_s:g} s",
                last_lines=running[0].last_words,
            )
        time.sleep(_POLL_INTERVAL_S)


def _how(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by signal {-returncode}"
    return f"ended with status {returncode}"


def _last_words(output: bytes) -> str:
    lines = output.decode(errors="replace").splitlines()[-_LAST_LINES:]
    return "\n".join(lines).strip()
