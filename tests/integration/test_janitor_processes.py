"""A role host's directories go with it, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import wait_for

HOST = """
import sys, time
from pathlib import Path
from tfos.fault.processes.janitor import removed_at_end
spool = Path(sys.argv[1])
with removed_at_end([spool, Path(sys.argv[1] + "-never-made")]):
    (spool / "feed").mkdir(parents=True)
    (spool / "feed" / "segment").write_bytes(b"rows")
    print("ready", flush=True)
    if sys.argv[2] == "wait":
        time.sleep(600)
assert not spool.exists()
"""


def janitors_of(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_host_leaves_no_directory_and_no_janitor(tmp_path, number):
    spool = tmp_path / "spool"
    command = [sys.executable, "-c", HOST, str(spool), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "ready\n"
        assert (spool / "feed" / "segment").exists()
        assert len(janitors_of(str(spool))) == 2
        host.send_signal(number)
        host.wait(5)
    wait_for(lambda: not spool.exists())
    wait_for(lambda: janitors_of(str(spool)) == [])


def test_a_host_that_ends_tidies_up_itself(tmp_path):
    spool = tmp_path / "spool"
    subprocess.run([sys.executable, "-c", HOST, str(spool), "end"], check=True, timeout=20)
    assert not spool.exists()
    wait_for(lambda: janitors_of(str(spool)) == [])
