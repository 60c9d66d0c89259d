"""Faults on purpose, and processes that do not wait for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfos.fault.drills.drills import DriverDrill, HostDrill
from tfos.fault.drills.faults import Drill, Fault


@pytest.fixture
def ended():
    """The id of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_has_ended_is_past_the_faults_of_its_host(ended, tmp_path):
    faults = [Fault.parse(f"{action}:worker-0@shutdown") for action in ("kill", "stop")]
    HostDrill(Drill(faults), lambda: None, tmp_path).reach("shutdown", ended)


def test_so_is_a_server_of_the_drivers(ended):
    DriverDrill(Drill([Fault.parse("kill:zookeeper@shutdown")]), ended).reach("shutdown")
