"""A process is told from every other, by what no setting of the wall clock changes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tfos import wire
from tfos.fault.processes.identity import ProcessIdentity, Proof

PROGRAM = """
import json
from tfos import wire
from tfos.fault.processes.identity import ProcessIdentity
print(json.dumps(wire.to_json(ProcessIdentity.here({}))), flush=True)
input()
"""


@pytest.fixture
def child():
    """A process, and who it says it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    yield process, wire.from_json(ProcessIdentity, json.loads(process.stdout.readline()))
    process.kill()
    process.communicate()


def test_it_lives_until_it_has_ended_even_if_nobody_reaps_it(child):
    process, identity = child
    here = ProcessIdentity.here({})
    assert identity.judged_from(here) is Proof.ALIVE
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identity.judged_from(here) is Proof.DEAD


def test_another_process_of_its_number_is_another(child):
    _, identity = child
    earlier = replace(identity, start=identity.start - 1)
    assert earlier.judged_from(ProcessIdentity.here({})) is Proof.DEAD
