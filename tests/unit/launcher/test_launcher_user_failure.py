"""Which failure an exception of a training process stands for."""

from __future__ import annotations

import pytest

from tfos.errors import CheckpointError, NullValueError, SchemaMismatchError
from tfos.fault.failure import Cause
from tfos.launcher.user_failure import describe_error

BROKEN_RING = """Graph execution error:

Detected at node tfos.gradient.0
Horovod has been shut down. This was caused by an exception on one of the ranks.
"""


# Seen when a rank is killed in the middle of a large allreduce.
BROKEN_TRANSFER = """Graph execution error:

[/third_party/gloo/gloo/transport/tcp/pair.cc:589] Read error [::1]:1: Connection reset by peer
"""


def tensorflow_error(name: str, text: str) -> Exception:
    kind = type(name, (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"})
    return kind(text)


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
        (tensorflow_error("UnknownError", BROKEN_RING), Cause.PEER_LOST),
        (tensorflow_error("UnknownError", BROKEN_TRANSFER), Cause.PEER_LOST),
    ],
)
def test_the_cause_of_an_error(error, cause):
    assert describe_error(error, "")["cause"] == cause.value


def test_an_exit_says_its_code():
    told = describe_error(SystemExit(3), "")
    assert (told["message"], told["exit_code"]) == ("train called sys.exit(3)", 3)


def test_a_broken_ring_is_told_in_one_line():
    told = describe_error(tensorflow_error("UnknownError", BROKEN_RING), "")
    assert told["message"] == "UnknownError: the ring is broken: another rank left it"


def test_long_texts_are_bounded():
    told = describe_error(ValueError("x" * 100_000), "y" * 100_000)
    assert len(told["message"]) <= 2_000
    assert len(told["traceback"]) <= 16_000
