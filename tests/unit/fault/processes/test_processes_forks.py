"""A signal that reaches a forked child at once does there what the child's own handler says."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from tfos.fault.processes.forks import in_forked_children

def on_sigterm(number, frame):
    raise KeyError("the parent's handler")

forks = {"main": lambda fork: fork(), "thread": lambda fork: in_thread(fork)}

def in_thread(fork):
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()

# Called in the child before what is registered later: as early as a parent's signal may come.
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
signal.signal(signal.SIGTERM, on_sigterm)
for _ in range(2):  # as for two runs of one process
    in_forked_children(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL), [signal.SIGTERM])

def fork():
    child = os.fork()
    if child == 0:
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    # The parent's own are handled again.
    print(signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), flush=True)

forks[sys.argv[1]](fork)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyError as error:
    print(error)
"""


@pytest.mark.parametrize("forking", ["main", "thread"])
def test_the_parents_handler_is_not_called_in_the_child(forking):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, forking],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str(-signal.SIGTERM), "True", repr("the parent's handler")]
