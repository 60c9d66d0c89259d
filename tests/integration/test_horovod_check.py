"""``tfos horovod --check``: two real ranks reduce, and whatever ends one ends the check in time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.services import tell_missing
from support.waiting import wait_for

from tfos.errors import HorovodError
from tfos.horovod_build.allreduce import check_allreduce
from tfos.horovod_installed import horovod_problem

pytestmark = [pytest.mark.tf, pytest.mark.horovod]

COMMAND = [sys.executable, "-c", "from tfos.cli.main import main; main()", "horovod", "--check"]
# Until the ranks are there: Horovod's store starts first.
START_TIMEOUT_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _horovod():
    problem = horovod_problem()
    if problem is not None:
        tell_missing(problem)


def started_by(pid: int) -> list[psutil.Process]:
    """Every process below this one whose command line is of the check."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "horovod" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def await_ranks(pid: int) -> list[psutil.Process]:
    """Return the check's two ranks as soon as both import TensorFlow."""

    def both() -> list[psutil.Process]:
        ranks = []
        for process in started_by(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[1:] == ["-m", "tfos.horovod_build.allreduce_rank"]:
                    ranks.append(process)
        return ranks if len(ranks) == 2 else []

    return wait_for(both, START_TIMEOUT_S)


def await_end(processes: list[psutil.Process]) -> None:
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def start(temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )


def test_two_ranks_reduce():
    answer = subprocess.run(COMMAND, capture_output=True, text=True, timeout=90, check=False)
    assert answer.returncode == 0, answer.stderr
    checking, works = answer.stdout.splitlines()
    assert checking == "checking: two ranks on this machine reduce a number"
    assert works.startswith("Horovod 0.28.1 works with TensorFlow 2.")
    assert answer.stderr == ""


def test_a_killed_rank_fails_the_check_at_once_and_leaves_nothing(tmp_path):
    with start(tmp_path) as check:
        ranks = await_ranks(check.pid)
        others = started_by(check.pid)
        began = time.monotonic()
        ranks[1].kill()
        _, said = check.communicate(timeout=60)
        spent_s = time.monotonic() - began
    assert check.returncode == 5
    assert "horovod: error: Horovod's check failed: rank 1 of 2 was killed by signal 9" in said
    assert spent_s < 10
    assert list(tmp_path.iterdir()) == []
    await_end(others)


def test_a_rank_that_hangs_fails_the_check_at_its_deadline():
    def stop_one() -> None:
        ranks.extend(await_ranks(os.getpid()))
        ranks[0].suspend()

    ranks: list[psutil.Process] = []
    stopper = threading.Thread(target=stop_one)
    stopper.start()
    began = time.monotonic()
    with pytest.raises(HorovodError, match=r"rank .*0.* of 2 did not end within 8 s"):
        check_allreduce(timeout_s=8)
    assert time.monotonic() - began < 12
    stopper.join()
    await_end(ranks)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_check_leaves_nothing(tmp_path, number):
    with start(tmp_path) as check:
        await_ranks(check.pid)
        others = started_by(check.pid)
        check.send_signal(number)
        _, said = check.communicate(timeout=30)
    await_end(others)
    if number is not signal.SIGKILL:
        assert check.returncode == 130
        assert list(tmp_path.iterdir()) == []
        assert said.endswith("horovod: interrupted\n")


def test_what_cannot_be_imported_is_told(tmp_path, monkeypatch):
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").write_text("raise ImportError('undefined symbol: _Z')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(HorovodError) as caught:
        check_allreduce()
    assert "undefined symbol: _Z" in caught.value.last_lines
