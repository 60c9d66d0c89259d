"""A pip that fails or hangs while Horovod is built: what is told of it, and that it ends."""

from __future__ import annotations

import os

import pytest

from tfos.errors import HorovodError
from tfos.horovod_build import pip_run


def test_the_first_complaint_and_the_end_are_told_not_what_pip_cleans_up(tmp_path, monkeypatch):
    pip = tmp_path / "pip.py"
    pip.write_text(
        "import sys\n"
        "for at in range(90): print('compiled', at)\n"
        "print('a.cc:1:1: fatal error: farmhash.h: No such file or directory')\n"
        "for at in range(90): print('cleaned', at, '.' * 4000)\n"
        "sys.exit('Failed to build')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(HorovodError, match="pip wheel ended with status 1") as caught:
        pip_run.pip(["wheel"], env=os.environ, cwd=tmp_path, log=tmp_path / "log", timeout_s=30)
    told = caught.value.last_lines.splitlines()
    assert told[:4] == [
        "compiled 87",
        "compiled 88",
        "compiled 89",
        "a.cc:1:1: fatal error: farmhash.h: No such file or directory",
    ]
    assert told[-1] == "Failed to build"
    assert "..." in told
    assert len(told) < 25
    assert max(map(len, told)) <= 300


def test_a_pip_that_hangs_is_ended_at_its_deadline(tmp_path, monkeypatch):
    percents = []
    (tmp_path / "pip.py").write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('[ 45%] Building CXX object', flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(HorovodError, match="did not end within 8 s"):
        pip_run.pip(
            ["wheel"],
            env=os.environ,
            cwd=tmp_path,
            log=tmp_path / "log",
            timeout_s=8,
            on_percent=percents.append,
        )
    assert percents == [45]
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()
