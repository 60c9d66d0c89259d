"""Run pl_submit for real, and make sure that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

APPS = Path(__file__).parent / "apps"
TIMEOUT_S = 150


@dataclass
class Run:
    """One pl_submit that ended."""

    code: int
    out: str
    err: str
    record: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return self.out + self.err


class Submitter:
    """Starts pl_submit in an environment that can be recognised in every process it starts."""

    def __init__(self, tmp_path: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.directory = tmp_path
        self.result = tmp_path / "result.json"
        self.temporary = tmp_path / "tmp"
        self.temporary.mkdir()
        (tmp_path / "no-conf").mkdir()
        self.environment = {
            **os.environ,
            "TFOS_TEST_MARK": self.mark,
            "TMPDIR": str(self.temporary),
            "TFOS_CONF_DIR": str(tmp_path / "no-conf"),
        }
        self.run_ids: set[str] = set()

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [
            str(Path(sys.executable).with_name("pl_submit")),
            "--result-json",
            str(self.result),
        ]
        return subprocess.Popen(
            [*command, *arguments],
            env={**self.environment, **(env or {})},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], started: float) -> Run:
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"pl_submit did not end in {TIMEOUT_S} s:\n{out[-4000:]}\n{err[-8000:]}")
        self.run_ids.update(re.findall(r"tfos: run (\S+) of ", out))
        record = json.loads(self.result.read_text()) if self.result.exists() else {}
        return Run(process.returncode, out, err, record, time.monotonic() - started)

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> Run:
        started = time.monotonic()
        run = self.finish(self.start(*arguments, env=env), started)
        print(run.out[-6000:], run.err[-12000:], sep="\n--- stderr ---\n")
        return run

    def processes(self) -> list[psutil.Process]:
        """Every live process that descends from a pl_submit of this test."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TFOS_TEST_MARK") == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def assert_nothing_left(self) -> None:
        deadline = time.monotonic() + 5.0
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [" ".join(p.cmdline())[:200] for p in left] == []
        assert sorted(p.name for p in self.temporary.iterdir()) == []
        # Other runs may have spools there: only this test's own count.
        spools = [path.name for path in Path("/dev/shm").glob("tfos-*")]
        assert [name for name in spools if any(run in name for run in self.run_ids)] == []


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Submitter]:
    submitter = Submitter(tmp_path)
    yield submitter
    try:
        submitter.assert_nothing_left()
    finally:
        for process in submitter.processes():
            process.kill()


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., str]:
    """Write an application file and return its path."""

    def write(source: str, name: str = "app.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write
