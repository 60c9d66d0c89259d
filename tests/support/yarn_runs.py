"""Run jobs on the real YARN and HDFS, and look for what they leave there."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import pyspark

from support.drills import TRAINING
from support.waiting import wait_for
from tfos.files.open import open_file_system
from tfos.testing import DrillCluster, DrillRun
from tfos.testing.yarn import YarnCluster
from tfos.testing.yarn.web import ask

__all__ = [
    "CLUSTER",
    "COUNTED",
    "COUNTED_SESSION",
    "FAULTS",
    "FAULTY",
    "INSTALLED",
    "PS_SIZES",
    "RING",
    "YarnRuns",
]

_TESTS = Path(__file__).parents[1]
FAULTY = str(_TESTS / "e2e" / "apps" / "faults.py")
FAULTS = ("--arch", "plain", FAULTY)
RING = str(_TESTS / "e2e" / "apps" / "ring.py")
CLUSTER = ("--deploy-mode", "cluster")
PS_SIZES = (
    *("--ps-memory", "1536m", "--ps-cores", "1", "--worker-memory", "2g", "--worker-cores", "2"),
    *("--chief-memory", "1792m", "--chief-cores", "1"),
)
COUNTED = str(_TESTS / "fault" / "apps" / "counted.py")
COUNTED_SESSION = str(_TESTS / "fault" / "apps" / "counted_session.py")
# Every host sees this installation: nothing of it need be shipped.
INSTALLED = (
    *("--spark-conf", f"spark.yarn.jars=local:{Path(pyspark.__file__).parent}/jars/*"),
    *("--spark-conf", f"spark.pyspark.python={sys.executable}"),
)

T = TypeVar("T")


class Training(NamedTuple):
    """A training process, as it was when it was looked at."""

    role: str
    process: psutil.Process
    directory: str
    environ: dict[str, str]


class YarnRuns:
    """Takes the words of a pl_submit as they stand on a command line, the application last."""

    def __init__(self, yarn: YarnCluster, cluster: DrillCluster, options: Sequence[str]) -> None:
        self.yarn = yarn
        self.hdfs, _, _ = open_file_system(yarn.record.hdfs, "the test")
        self.home = f"/user/{getpass.getuser()}"
        self._cluster = cluster
        self._options = options
        # What others left in the cluster, which all share, is theirs to tell.
        self._before = self._left()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        *options, app = arguments
        return self._cluster.start(app, *self._options, *options, env=self.yarn.environment)

    def finish(self, process: subprocess.Popen[str]) -> DrillRun:
        run = self._cluster.finish(process)
        print(run.out[-6000:], run.err[-12000:], sep="\n--- stderr ---\n")
        return run

    def __call__(self, *arguments: str) -> DrillRun:
        return self.finish(self.start(*arguments))

    def tfos(self, *arguments: str, code: int | None = 0) -> str:
        """Run a subcommand of tfos against the cluster; None takes any exit code."""
        command = [str(Path(sys.executable).with_name("tfos")), *arguments]
        environ = {**os.environ, **self.yarn.environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environ)
        assert code in (None, done.returncode), done.stderr
        return done.stderr if code else done.stdout

    def application(self) -> str:
        """Return the id of the application that runs; waits for one."""
        return str(self.wait_for(lambda: self.applications("RUNNING"))[-1]["id"])

    def applications(self, state: str) -> list[dict]:
        found = ask(f"{self.yarn.record.manager}/ws/v1/cluster/apps?states={state}")["apps"] or {}
        return sorted(found.get("app", []), key=lambda app: app["startedTime"])

    def attempts(self, application: str) -> int:
        """Return how many drivers YARN has started for an application in the cluster."""
        url = f"{self.yarn.record.manager}/ws/v1/cluster/apps/{application}/appattempts"
        return len(ask(url)["appAttempts"]["appAttempt"])

    def ended(self, name: str) -> dict | None:
        """Return the latest application of a name that has ended; None while there is none."""
        found = self.applications("FINISHED,FAILED,KILLED")
        return next((app for app in reversed(found) if app["name"] == name), None)

    def training(self) -> list[Training]:
        """Return the training processes that run."""
        found = []
        for process in self.yarn.record.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                # Before exec it has all of its parent's, amid exec no environment.
                if TRAINING not in process.cmdline():
                    continue
                directory, environ = process.cwd(), process.environ()
                role = re.search(r"/tfos-.*-([a-z]+-\d+)-\d+-[0-9a-f]+-host/", directory)
                if role is not None and "CONTAINER_ID" in environ:
                    found.append(Training(role[1], process, directory, environ))
        return found

    def wait_for(self, look: Callable[[], T], within_s: float = 120.0) -> T:
        """Look until something is found; a server that does not answer is asked again."""
        return wait_for(look, within_s, poll_s=0.2, not_yet=OSError)

    def assert_nothing_left(self, within_s: float = 60.0) -> None:
        """Check that no container or file of these runs is left in the cluster."""

        def nothing() -> bool:
            left = self._left() - self._before
            assert not left, sorted(left)
            return True

        wait_for(nothing, within_s, poll_s=0.2, not_yet=AssertionError)

    def _left(self) -> set[str]:
        # Files that NodeManagers remove meanwhile cannot be listed.
        (found,) = self.wait_for(lambda: [self._look_for_left()])
        return set(found)

    def _look_for_left(self) -> list[str]:
        found = [f"container {each['id']}" for each in self.yarn.containers()]
        for place in (f"{self.home}/.sparkStaging", f"{self.home}/.tfos/runs"):
            if self.hdfs.exists(place):
                self.hdfs.invalidate_cache()
                found += [f"file {path}" for path in self.hdfs.ls(place, detail=False)]
        hosts = Path(self.yarn.record.configuration).parent
        found += [f"file {path}" for path in hosts.glob("node-*/local/usercache/*/appcache/*/*")]
        return found
