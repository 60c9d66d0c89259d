"""Run the words of a `pl_submit` in this process, on a Spark session that outlives the run.

Everything is real but the way there: the options are parsed, the application is checked and loaded,
role hosts are Spark's tasks, training processes are processes. Only spark-submit, the driver's
process and a ZooKeeper of the run's own are missing, which cost more than the rest of a short run.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest

from support.drills import TRAINING, command_line
from support.waiting import wait_for
from tfos.cli.main import pl_submit
from tfos.config import JobConfig
from tfos.errors import TfosError
from tfos.fault.drills.drills import DRILL_LOG_VARIABLE
from tfos.launcher.application.loading import load_job
from tfos.launcher.submit import client
from tfos.launcher.submit.prerequisites import check_application, parse_app
from tfos.terminal import TerminalFormatter
from tfos.testing import DrillRun, SharedCluster
from tfos.testing.drill_run import read_faults
from tfos.testing.leftovers import processes_marked, spools_of

__all__ = ["InSession"]

_MARK = "TFOS_TEST_MARK"


class InSession:
    """Called as the fixture `submit` is, for runs on the master ``local[8]``.

    Parameters
    ----------
    place
        An empty directory: temporary files of all runs and what they write lie there.
    """

    def __init__(self, place: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._temporary = place / "tmp"
        self._no_conf = place / "no-conf"
        self._out, self._err, self._faults = (place / n for n in ("out", "err", "faults.log"))
        self._cluster = SharedCluster()
        self._stack = ExitStack()
        self._before: set[Path] = set()
        self._run_ids: set[str] = set()

    def __enter__(self) -> InSession:
        for directory in (self._temporary, self._no_conf):
            directory.mkdir()
        for file in (self._out, self._err, self._faults):
            file.touch()
        with ExitStack() as stack:
            # The JVM, and with it every role host, writes for good where it writes from the start.
            with self._environment(), self._written():
                stack.enter_context(self._cluster)
                # What Spark makes with its first task, it keeps.
                self._cluster.spark.range(9, numPartitions=2).rdd.map(str).collect()
            self._before = set(self._temporary.iterdir())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._environment(), self._written():
            self._stack.close()

    def __call__(self, *words: str) -> DrillRun:
        """Run to the end; the working directory is a temporary one."""
        began, start = time.monotonic(), [f.stat().st_size for f in self._files]
        with tempfile.TemporaryDirectory() as directory:
            record = Path(directory, "result.json")
            words = ("--result-json", str(record), *words)
            with self._environment(), self._written(), pytest.MonkeyPatch.context() as patch:
                patch.chdir(directory)
                patch.setattr(client, "_submit", self._submit)
                code = self._code(words)
            document = json.loads(record.read_text()) if record.exists() else {}
        out, err, faults = (
            file.read_bytes()[begin:].decode(errors="replace")
            for file, begin in zip(self._files, start, strict=True)
        )
        print(out[-6000:], err[-12000:], sep="\n--- stderr ---\n")
        self._run_ids.update(filter(None, [document.get("run_id")]))
        took_s = time.monotonic() - began
        return DrillRun(code, out, err, document, read_faults(faults), took_s)

    def training(self) -> list[psutil.Process]:
        """Return the training processes that run, without the guards that they have forked."""
        found = processes_marked(_MARK, self._mark)
        # A training process leads its group, which its guard is in.
        return [p for p in found if TRAINING in command_line(p) and _leads_its_group(p.pid)]

    def assert_nothing_left(self, within_s: float = 5.0) -> None:
        """Check that runs left no process, file or spool, once Spark has seen their tasks end."""

        def nothing() -> bool:
            left = self._leftovers()
            assert not left, left
            return True

        wait_for(nothing, within_s, poll_s=0.1, not_yet=AssertionError)

    @property
    def _files(self) -> tuple[Path, Path, Path]:
        return self._out, self._err, self._faults

    def _leftovers(self) -> list[str]:
        lines = map(command_line, processes_marked(_MARK, self._mark))
        left = [" ".join(line) for line in lines if TRAINING in line]
        left += [str(path) for path in set(self._temporary.iterdir()) - self._before]
        return left + spools_of(self._run_ids)

    def _code(self, words: tuple[str, ...]) -> int:
        with pytest.raises(SystemExit) as ended:
            pl_submit.main(list(words), prog_name="pl_submit", standalone_mode=False)
        return int(ended.value.code or 0)

    def _submit(self, config: JobConfig, app: str) -> int:
        """Take the place of the client's end of a submission, and of the driver."""
        path, job_class = parse_app(app)
        check_application(path, job_class)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(path), *config.args])
            patch.setattr(sys, "path", list(sys.path))
            before = set(sys.modules)
            try:
                return self._cluster.run(load_job(path, job_class), config).exit_code
            except TfosError as error:
                print(*getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
                raise
            finally:
                # The next application may have a module of the same name.
                for name in set(sys.modules) - before:
                    if str(path.parent) in str(getattr(sys.modules[name], "__file__", "")):
                        del sys.modules[name]

    @contextmanager
    def _environment(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(_MARK, self._mark)
            patch.setenv("TMPDIR", str(self._temporary))
            patch.setattr("tempfile.tempdir", None)
            patch.setenv("TFOS_CONF_DIR", str(self._no_conf))
            patch.setenv(DRILL_LOG_VARIABLE, str(self._faults))
            yield

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Write standard output and error to the files, what other processes inherit too."""
        log = logging.getLogger("tfos")
        level, kept = log.level, [os.dup(1), os.dup(2)]
        with ExitStack() as stack:
            out, err = (stack.enter_context(file.open("a")) for file in (self._out, self._err))
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            handler = logging.StreamHandler()
            handler.setFormatter(TerminalFormatter("%(asctime)s tfos: %(message)s"))
            log.addHandler(handler)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                yield
            finally:
                for target, fd in zip((1, 2), kept, strict=True):
                    os.dup2(fd, target)
                    os.close(fd)
                log.removeHandler(handler)
                log.setLevel(level)


def _leads_its_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:  # it has ended meanwhile
        return False
