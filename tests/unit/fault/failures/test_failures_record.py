"""What is told of a failure."""

from __future__ import annotations

import pytest

from tfos.fault.failures.exits import failure_from_exit
from tfos.fault.failures.record import Cause, arrange_stacks
from tfos.fault.processes.events import Exited

THREAD = 'Thread 0x1 (most recent call first):\n  File "a.py", line 1 in wait'
CURRENT = 'Current thread 0x2 (most recent call first):\n  File "b.py", line 2 in train'
MODULES = "Extension modules: numpy (total: 1)"


def test_the_thread_that_crashed_comes_first_after_the_signal():
    fatal = "Fatal Python error: Segmentation fault"
    dump = "\n\n".join([fatal, THREAD, THREAD, CURRENT, MODULES]) + "\n"
    expected = [fatal, CURRENT, THREAD, THREAD, MODULES]
    assert arrange_stacks(dump) == "\n\n".join(expected)
    assert arrange_stacks(f"{THREAD}\n\n{CURRENT}\n") == f"{CURRENT}\n\n{THREAD}"
    assert arrange_stacks("") == ""


NO_FORK = """Traceback (most recent call last):
  File "guard.py", line 113, in _fork_guard
tfos.errors.InfrastructureError: the guard of training process 7 could not be forked: [Errno 11] \
Resource temporarily unavailable"""
FULL = """Traceback (most recent call last):
  File "training_process.py", line 210, in main
OSError: [Errno 28] No space left on device"""
ABORTED = "F env.cc:74] Check failed: 0 (11 vs. 0) Thread t creation via pthread_create() failed."


@pytest.mark.parametrize(
    ("returncode", "words", "message", "lasting"),
    [
        (1, NO_FORK, "exited with code 1: InfrastructureError: the guard of training", True),
        (1, FULL, "exited with code 1: OSError: [Errno 28] No space left on device", True),
        (-6, ABORTED, "was killed by SIGABRT", True),
        (1, "OpenBLAS: pthread_create failed for thread 1 of 2", "exited with code 1", True),
        (9, "about to leave", "exited with code 9", False),
        # A checkpoint that could not be kept had been reported; then it was killed.
        (-9, "no space is left for /ckpt: training goes on", "was killed by SIGKILL", False),
        (-15, "libgomp: Thread creation failed", "was killed by SIGTERM", False),
        (0, "", "exited with code 0 before it reported", False),
    ],
)
def test_the_end_of_a_process_that_did_not_say_why(returncode, words, message, lasting):
    exited = Exited(7, returncode, 1.0, words.splitlines())
    failure = failure_from_exit("worker-0", exited)
    assert failure.message.startswith(f"the training process {message}")
    assert failure.lasting is lasting
    assert ("ulimit" in failure.hint or "free space" in failure.hint) is lasting
    died = Cause.PROCESS_DEATH if returncode < 0 else Cause.USER_CODE
    assert failure.cause is (Cause.INFRASTRUCTURE if lasting else died)
