"""Which failure an exception of a training process stands for."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from tfos.errors import CheckpointError, NullValueError, SchemaMismatchError
from tfos.fault.failures.error_text import headline, user_traceback
from tfos.fault.failures.record import Cause
from tfos.launcher.training.user_failure import describe_error

BROKEN_RING = """Graph execution error:

Detected at node tfos.gradient.0
Horovod has been shut down. This was caused by an exception on one of the ranks.
"""


# Seen when a rank is killed in the middle of a large allreduce.
BROKEN_TRANSFER = """Graph execution error:

[/third_party/gloo/gloo/transport/tcp/pair.cc:589] Read error [::1]:1: Connection reset by peer
"""


# Said by a process that speaks to the place of one that was replaced.
REPLACED = "Unable to find a context_id matching the specified one (7). Perhaps it was restarted?"

IN_PYTHON = """OSError: [Errno 5] Input/output error
Traceback (most recent call last):

  File "/jobs/app.py", line 4, in rows

OSError: [Errno 5] Input/output error


\t [[{{node PyFunc}}]]"""


def tensorflow_error(name: str, text: str) -> Exception:
    kind = type(name, (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"})
    return kind(text)


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


class BadBatchError(ValueError):
    """A class of the user's own."""


FULL = OSError(errno.ENOSPC, "No space left on device")


def staging_error(origin: Exception) -> Exception:
    """Return what AutoGraph makes of an exception whose class it cannot build."""
    error = tensorflow_error("StagingError", "in user code:\n")
    error.ag_error_metadata, error.__context__ = object(), origin
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("x"), Cause.USER_CODE),
        (NullValueError("nulls", column="a", rows=1), Cause.DATA),
        (SchemaMismatchError("no column"), Cause.CONFIG),
        (CheckpointError("disk"), Cause.STORAGE),
        (tensorflow_error("UnavailableError", "Socket closed"), Cause.PEER_LOST),
        (tensorflow_error("UnknownError", "Could not start gRPC server"), Cause.INFRASTRUCTURE),
        (tensorflow_error("UnknownError", "NullValueError: column a"), Cause.DATA),
        (tensorflow_error("InvalidArgumentError", "shapes"), Cause.USER_CODE),
        (tensorflow_error("InvalidArgumentError", REPLACED), Cause.PEER_LOST),
        (tensorflow_error("UnknownError", BROKEN_RING), Cause.PEER_LOST),
        (tensorflow_error("UnknownError", BROKEN_TRANSFER), Cause.PEER_LOST),
    ],
)
def test_the_cause_of_an_error(error, cause):
    assert describe_error(error, "").cause == cause.value


def test_an_exit_says_its_code():
    told = describe_error(SystemExit(3), "")
    assert (told.message, told.exit_code) == ("train called sys.exit(3)", 3)


def test_a_broken_ring_is_told_in_one_line():
    told = describe_error(tensorflow_error("UnknownError", BROKEN_RING), "")
    assert told.message == "UnknownError: the ring is broken: another rank left it"


def test_long_texts_are_bounded():
    told = describe_error(ValueError("x" * 100_000), "y" * 100_000)
    assert len(told.message) <= 2_000
    assert len(told.traceback) <= 16_000


def while_handling(error, handled, of_its_own=False):
    """Return an error as if raised while another was handled; `from None` if `of_its_own`."""
    error.__context__, error.__suppress_context__ = handled, of_its_own
    return error


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (KeyError("x"), True),
        (ZeroDivisionError(), True),
        (BadBatchError(), True),
        (staging_error(BadBatchError()), True),
        (tensorflow_error("InvalidArgumentError", "indices[0] = 7 is not in [0, 3)"), True),
        (tensorflow_error("UnknownError", IN_PYTHON.replace("OSError", "KeyError")), True),
        (FULL, True),
        (caused(CheckpointError("x"), OSError(errno.EDQUOT, "Disk quota exceeded")), True),
        (CheckpointError("no space is left for /ckpt; free some"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError("database or disk is full"), True),
        (while_handling(RuntimeError("x"), FULL), True),
        (while_handling(RuntimeError("x"), FULL, of_its_own=True), False),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), True),
        (RuntimeError("the service did not answer"), False),
        (caused(RuntimeError("x"), KeyError("y")), False),
        (ConnectionResetError(), False),
        (TimeoutError(), False),
        (MemoryError(), False),
        (SystemExit(3), False),
        (CheckpointError("the storage did not answer"), False),
        (staging_error(RuntimeError("x")), False),
        (tensorflow_error("InvalidArgumentError", REPLACED), False),
        (tensorflow_error("UnavailableError", "Socket closed"), False),
        (tensorflow_error("UnknownError", IN_PYTHON), False),
        (tensorflow_error("ResourceExhaustedError", "OOM when allocating"), False),
    ],
    ids=repr,
)
def test_what_the_next_process_would_meet_again(error, lasting):
    assert describe_error(error, "").lasting is lasting


def test_what_has_run_out_is_hinted_at():
    assert "--checkpoint-dir" in describe_error(FULL, "").hint
    assert "ulimit -u" in describe_error(RuntimeError("can't start new thread"), "").hint
    unsent = tensorflow_error(
        "FailedPreconditionError", "GeneratorDatasetOp::Dataset does not support serialization"
    )
    assert "ctx.keras_dataset" in describe_error(unsent, "").hint
    taken = ValueError("Unrecognized data type: x=<tf_keras.src.DatasetCreator object>")
    assert "tf_keras" in describe_error(taken, "").hint
    assert "ulimit -n" in describe_error(OSError(errno.EMFILE, "Too many open files"), "").hint


@pytest.mark.parametrize(
    "method", ["__str__", "__repr__", "__getattribute__", "__eq__", "__bool__"]
)
def test_an_error_whose_own_methods_raise_is_still_one_of_the_users_code(method):
    def refuse(self, *given):
        raise RuntimeError("not now")

    kind = type("OddError", (Exception,), {method: refuse})
    told = describe_error(kind("x"), "")
    assert (told.cause, told.message[:8]) == ("user_code", "OddError")
    assert headline(kind("x")).startswith("OddError")
    assert "OddError" in user_traceback(kind("x"))


def test_an_exit_with_a_value_that_has_no_repr():
    class Code:
        def __repr__(self):
            return None

    told = describe_error(SystemExit(Code()), "")
    assert told.message == "train called sys.exit(<a Code whose __repr__ raised TypeError>)"


BREAKPOINT = """
import json
from tfos import wire
from tfos.launcher.training.user_failure import describe_error
try:
    breakpoint()
    reached = True
except BaseException as error:
    print(json.dumps(wire.to_json(describe_error(error, ""))))
"""


def test_a_breakpoint_without_a_terminal_names_the_command_that_has_one():
    answer = subprocess.run(
        [sys.executable, "-c", BREAKPOINT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = json.loads(answer.stdout.splitlines()[-1])
    assert "`tfos debug`" in told["message"]
    assert told["cause"] == "config"
