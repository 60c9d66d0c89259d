"""What is told of a failure."""

from __future__ import annotations

from tfos.fault.failure import arrange_stacks

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
