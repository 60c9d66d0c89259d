"""Run ``pl_submit`` for real on this machine, cause faults, and look for what was left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from tfos.fault.drills.drills import DRILL_LOG_VARIABLE
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.testing.drill_run import DrillRun, read_faults
from tfos.testing.leftovers import count_znodes, processes_marked, spools_of
from tfos.topology import Endpoint

__all__ = ["DrillCluster"]

_MARK = "TFOS_TEST_MARK"
_POLL_S = 0.1


class DrillCluster:
    """Runs jobs on this machine, each by a real ``pl_submit``. A context manager, one thread only.

    Leaving it kills whatever still runs. No configuration of this machine is read: what a run is to
    have comes by its options.

    Parameters
    ----------
    directory
        An existing, empty directory; runs have their working directory, temporary files and record
        there.
    master
        Spark master of every run whose options name no other: ``local`` (role hosts share one JVM)
        or ``local-cluster[N,CORES,MB]`` (N executors, each a JVM of its own).
    zookeeper
        Start a ZooKeeper server that outlives the runs; otherwise each run has its own.
    limit_s
        Longest run.

    Attributes
    ----------
    run_ids
        The runs so far.

    Raises
    ------
    LaunchError
        On entering, if the ZooKeeper server does not start.
    """

    def __init__(
        self,
        directory: Path,
        *,
        master: str = "local",
        zookeeper: bool = False,
        limit_s: float = 150.0,
    ) -> None:
        self.run_ids: set[str] = set()
        self._mark = uuid.uuid4().hex
        self._directory = directory
        self._master = master
        self._limit_s = limit_s
        self._record = directory / "result.json"
        self._temporary = directory / "tmp"
        self._faults = directory / "faults.log"
        self._started: dict[int, float] = {}
        self._server = EmbeddedZooKeeper() if zookeeper else None
        self._znodes = 0

    def __enter__(self) -> DrillCluster:
        self._temporary.mkdir()
        (self._directory / "no-conf").mkdir()
        if self._server is not None:
            self._server.start()
            self._znodes = self._count_znodes(self._server)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kill_all()
        if self._server is not None:
            self._server.stop()

    @property
    def zookeeper(self) -> EmbeddedZooKeeper | None:
        """The server that outlives the runs: to halt, to restart; None when each has its own."""
        return self._server

    def submit(
        self,
        app: str | Path,
        *options: str,
        inject: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> DrillRun:
        """Run an application to its end; blocks for at most `limit_s`.

        Parameters
        ----------
        app
            The application file, or ``FILE:JobClass``.
        *options
            Further options of ``pl_submit``, such as ``"--arch", "ps"``.
        inject
            Faults to cause, each ``ACTION:TARGET@POINT``.
        env
            Further environment variables.

        Raises
        ------
        AssertionError
            If it did not end in time; it was killed then, and its last words are in the message.
        """
        return self.finish(self.start(app, *options, inject=inject, env=env))

    def start(
        self,
        app: str | Path,
        *options: str,
        inject: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start what `submit` runs, and return: for a test that interferes itself."""
        command = [str(Path(sys.executable).with_name("pl_submit"))]
        command += ["--master", self._master]
        self._record.unlink(missing_ok=True)
        if "--no-wait" not in options:
            command += ["--result-json", str(self._record)]
        if self._server is not None:
            command += ["--zookeeper", self._server.address]
        command += [word for fault in inject for word in ("--inject", fault)]
        self._faults.write_text("")
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, *options, str(app)],
            env={
                **os.environ,
                _MARK: self._mark,
                "TMPDIR": str(self._temporary),
                "TFOS_CONF_DIR": str(self._directory / "no-conf"),
                DRILL_LOG_VARIABLE: str(self._faults),
                **(env or {}),
            },
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started[process.pid] = began
        return process

    def finish(self, process: subprocess.Popen[str]) -> DrillRun:
        """Wait until what `start` started has ended; raises as `submit`."""
        try:
            out, err = process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            self._kill_all()
            out, err = process.communicate()
            raise AssertionError(
                f"pl_submit did not end in {self._limit_s:g} s:\n{out[-4000:]}\n{err[-8000:]}"
            ) from None
        self.run_ids.update(re.findall(r"tfos: run (\S+) of ", out))
        record = json.loads(self._record.read_text()) if self._record.exists() else {}
        took_s = time.monotonic() - self._started.pop(process.pid)
        faults = read_faults(self._faults.read_text())
        return DrillRun(process.returncode, out, err, record, faults, took_s)

    def processes(self) -> list[psutil.Process]:
        """Return every live process that descends from a ``pl_submit`` of this cluster."""
        return processes_marked(_MARK, self._mark)

    def _kill_all(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def assert_nothing_left(self, within_s: float = 5.0) -> None:
        """Check that no process, temporary file, memory-backed spool or znode of any run is left.

        Parameters
        ----------
        within_s
            How long they may still take to go.

        Raises
        ------
        AssertionError
            If something is; says what.
        """
        deadline = time.monotonic() + within_s
        while (left := self._leftovers()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if left:
            raise AssertionError("left behind:\n  " + "\n  ".join(left))

    def _leftovers(self) -> list[str]:
        left = []
        for process in self.processes():
            try:
                left.append(f"process {process.pid}: {' '.join(process.cmdline())[:200]}")
            except psutil.NoSuchProcess:
                continue
        left += [f"file {path}" for path in sorted(self._temporary.iterdir())]
        left += [f"spool {name}" for name in spools_of(self.run_ids)]
        if self._server is not None and self._server.running:
            more = self._count_znodes(self._server) - self._znodes
            left += [f"{more} znodes"] if more > 0 else []
        return left

    def _count_znodes(self, server: EmbeddedZooKeeper) -> int:
        address = Endpoint.parse(server.address)
        return count_znodes(address.host, address.port)
