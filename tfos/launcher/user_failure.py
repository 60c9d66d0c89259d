"""Describe an exception of a training process as the failure it stands for. Pure."""

from __future__ import annotations

from typing import Any

from tfos.errors import TfosError
from tfos.fault.failure import Cause, cause_of

__all__ = ["describe_error"]

_PEER_ERRORS = {"UnavailableError", "AbortedError", "ConnectionResetError", "CancelledError"}
# What collectives of Horovod 0.28.1 say once a rank has gone; the second amid a transfer.
_RING_BROKEN = ("Horovod has been shut down", "gloo/transport")
_PEER_HINT = "another role went away; its own failure is the one to look at"
_MAX_TRACEBACK = 16_000
_MAX_MESSAGE = 2_000


def describe_error(error: BaseException, traceback: str) -> dict[str, Any]:
    """Return cause, message, traceback, hint and exit code of a failure, JSON-ready."""
    cause, hint = _cause_and_hint(error)
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else None
    return {
        "cause": cause.value,
        "message": _message(error)[:_MAX_MESSAGE],
        "traceback": traceback[-_MAX_TRACEBACK:],
        "hint": hint,
        "exit_code": code,
    }


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"train called sys.exit({error.code!r})"
    if _is_of_broken_ring(error):
        return f"{type(error).__name__}: the ring is broken: another rank left it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _is_of_broken_ring(error: BaseException) -> bool:
    return any(words in str(error) for words in _RING_BROKEN)


def _cause_and_hint(error: BaseException) -> tuple[Cause, str]:
    if isinstance(error, TfosError):
        return cause_of(error), ""
    from_tensorflow = type(error).__module__.startswith("tensorflow")
    if from_tensorflow and "Could not start gRPC server" in str(error):
        return (
            Cause.INFRASTRUCTURE,
            "the port that the role host reserved could not be bound: TF_GRPC_REUSE_PORT must be "
            "true in the training process's environment",
        )
    if from_tensorflow and "UnsupportedTypeError" not in str(error):
        for name in ("NullValueError", "SpoolFullError", "FeedError"):
            if f"{name}:" in str(error):
                return Cause.DATA, ""
    if from_tensorflow and type(error).__name__ in _PEER_ERRORS:
        return Cause.PEER_LOST, _PEER_HINT
    if _is_of_broken_ring(error):
        return Cause.PEER_LOST, _PEER_HINT
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return Cause.USER_CODE, "memory ran out: use a smaller batch or model, or more memory"
    return Cause.USER_CODE, ""
