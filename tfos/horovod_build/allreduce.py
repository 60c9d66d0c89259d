"""Check the installed Horovod by what it is for: two processes that reduce a number with Gloo."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

from tfos.errors import HorovodError
from tfos.horovod_build.leash import leashed

__all__ = ["check_allreduce"]

_RANKS = 2
_POLL_INTERVAL_S = 0.05
_LAST_LINES = 15
# For a traceback that is being written.
_LAST_WORDS_TIMEOUT_S = 5.0

# Horovod's own server, whose import loads the package that is to be checked: in its own process.
_STORE_PROGRAM = """\
import time
from horovod.runner.http.http_server import RendezvousServer
server = RendezvousServer()
print(server.start(), flush=True)
server.init([])
time.sleep(3600)
"""


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
        port = held.enter_context(_store(directory, deadline))
        ranks = [_start(held, number, port, directory) for number in range(_RANKS)]
        _await_all(ranks, deadline, timeout_s)
    return time.monotonic() - began


@contextlib.contextmanager
def _store(directory: Path, deadline: float) -> Iterator[int]:
    """Serve the key-value store at which Gloo's ranks meet; yields its port."""
    argv = [sys.executable, "-c", _STORE_PROGRAM]
    with leashed(argv, env=os.environ, cwd=directory, output=PIPE) as process:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
            raise HorovodError("Horovod's check failed: its store did not start in time")
        line = process.stdout.readline()
        if not line.strip().isdigit():
            with contextlib.suppress(TimeoutExpired):
                process.wait(_LAST_WORDS_TIMEOUT_S)
            process.kill()
            said = _last_words(line + process.stdout.read())
            raise HorovodError("Horovod's check failed: its store did not start", last_lines=said)
        yield int(line)


def _start(held: contextlib.ExitStack, number: int, port: int, directory: Path) -> _Rank:
    log = directory / f"rank-{number}.log"
    output = held.enter_context(log.open("wb"))
    argv = [sys.executable, "-m", "tfos.horovod_build.allreduce_rank"]
    process = leashed(
        argv, env={**os.environ, **_place(number, port)}, cwd=directory, output=output
    )
    return _Rank(number, held.enter_context(process), log)


def _place(number: int, port: int) -> dict[str, str]:
    """Return the environment that tells a rank its place and where the others are found."""
    rank = {"RANK": number, "SIZE": _RANKS, "LOCAL_RANK": number, "LOCAL_SIZE": _RANKS}
    host = {"CROSS_RANK": 0, "CROSS_SIZE": 1, "GLOO_RENDEZVOUS_PORT": port}
    gloo = {
        "HOSTNAME": "localhost",
        "CONTROLLER": "gloo",
        "CPU_OPERATIONS": "gloo",
        "GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "GLOO_IFACE": "lo",
    }
    variables = {f"HOROVOD_{name}": str(value) for name, value in {**rank, **host, **gloo}.items()}
    # A check must neither wait for nor fill a GPU that somebody uses.
    return {**variables, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}


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
