"""Describe an exception of a training process as the failure it stands for. Pure."""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Iterator

from tfos.errors import TfosError
from tfos.fault.failures.error_text import (
    builtin_kind,
    headline,
    leaves_of,
    repr_of,
    text_of,
    told_by,
)
from tfos.fault.failures.exhaustion import exhausted
from tfos.fault.failures.record import Cause, Failure, cause_of

__all__ = ["describe_error"]

_PEER_ERRORS = {"UnavailableError", "AbortedError", "ConnectionResetError", "CancelledError"}
# What a process hears that talks to the place of one that has been replaced since.
_PEER_REPLACED = (
    "Unable to find the relevant tensor remote_handle",
    "Unable to find a context_id matching",
    "Primary device is not remote",
    "unknown device",
)
# What collectives of Horovod 0.28.1 say once a rank has gone; the second during a transfer.
_RING_BROKEN = ("Horovod has been shut down", "gloo/transport")
_PEER_HINT = "another role went away; its own failure is the one to look at"
_NOT_SENT_HINT = (
    "Keras sends this dataset to other processes, which it cannot do with ctx.dataset: under "
    "--arch ps give model.fit a ctx.keras_dataset, and evaluate by a loop over ctx.dataset or with "
    "ctx.fit"
)
_KERAS_3_HINT = "this model is of Keras 3, which --arch ps does not train: take it from tf_keras"
_MAX_TRACEBACK = 16_000
_MAX_MESSAGE = 2_000
_MAX_CAUSES = 20

_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Errors of the code itself: what raised one raises it again on the same data."""
_TENSORFLOW_MISTAKES = {"InvalidArgumentError", "UnimplementedError"}


def describe_error(
    error: BaseException, traceback: str, *, key: str = "", at: float = 0.0
) -> Failure:
    """Return the failure of a role, or of the driver, that an exception ended.

    Holds for any exception, whatever its own methods do.

    Parameters
    ----------
    error
        What was raised.
    traceback
        Its traceback, as `user_traceback` words it.
    key, at
        Whose failure it is, and when it came: as in `Failure`.
    """
    try:
        return _description(error, traceback, key, at)
    except Exception as second:
        own = f"{type(error).__name__} (of which no more can be told: {type(second).__name__})"
        return Failure(key, Cause.USER_CODE, own, at, traceback=_shortened(traceback))


def _description(error: BaseException, traceback: str, key: str, at: float) -> Failure:
    texts = [text_of(each) for each in _chain(error)]
    cause, hint = _cause_and_hint(error, texts[0])
    scarce = exhausted(texts)
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else None
    return Failure(
        key=key,
        cause=cause,
        message=_message(error, texts[0]),
        time=at,
        traceback=_shortened(traceback),
        hint=hint or scarce or "",
        exit_code=code,
        lasting=cause is not Cause.PEER_LOST and (scarce is not None or _is_mistake(error)),
    )


def _message(error: BaseException, text: str) -> str:
    if isinstance(error, SystemExit):
        return f"train called sys.exit({repr_of(error.code)})"
    if _is_of_broken_ring(text):
        return f"{type(error).__name__}: the ring is broken: another rank left it"
    if isinstance(error, TfosError):  # says all there is to say, on one line
        return f"{type(error).__name__}: {' '.join(text.split())}"[:_MAX_MESSAGE]
    return headline(error)


def _shortened(traceback: str) -> str:
    """Keep both ends: frames come first, what was raised last, and either may be long."""
    if len(traceback) <= _MAX_TRACEBACK:
        return traceback
    half = _MAX_TRACEBACK // 2 - 8
    return f"{traceback[:half]}\n...\n{traceback[-half:]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error and what it was raised from, or while what was handled."""
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _is_mistake(error: BaseException) -> bool:
    return all(_is_of_the_code(leaf) for leaf in leaves_of(error))


def _is_of_the_code(error: BaseException) -> bool:
    if isinstance(error, _MISTAKES):
        return True
    if not type(error).__module__.startswith("tensorflow"):
        return False
    # AutoGraph has an exception of its own for one that it cannot build; data sets and functions
    # in Python arrive as an error of the operation that called them.
    origin = error.__context__ if hasattr(error, "ag_error_metadata") else None
    if isinstance(origin, _MISTAKES):
        return True
    name = told_by(error).kind
    kind = builtin_kind(name)
    return name in _TENSORFLOW_MISTAKES or (kind is not None and issubclass(kind, _MISTAKES))


def _is_of_broken_ring(text: str) -> bool:
    return any(words in text for words in _RING_BROKEN)


def _cause_and_hint(error: BaseException, text: str) -> tuple[Cause, str]:
    if isinstance(error, TfosError):
        return cause_of(error), ""
    if isinstance(error, BdbQuit):
        return Cause.CONFIG, ""
    if type(error).__module__.startswith("tensorflow"):
        told = _told_by_tensorflow(error, text)
        if told is not None:
            return told
    if _is_of_broken_ring(text):
        return Cause.PEER_LOST, _PEER_HINT
    if "Unrecognized data type" in text and "DatasetCreator" in text:
        return Cause.USER_CODE, _KERAS_3_HINT
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return Cause.USER_CODE, "memory ran out: use a smaller batch or model, or more memory"
    return Cause.USER_CODE, ""


def _told_by_tensorflow(error: BaseException, text: str) -> tuple[Cause, str] | None:
    if "Could not start gRPC server" in text:
        return (
            Cause.INFRASTRUCTURE,
            "the port that the role host reserved could not be bound: TF_GRPC_REUSE_PORT must be "
            "true in the training process's environment",
        )
    if "does not support serialization" in text:
        return Cause.USER_CODE, _NOT_SENT_HINT
    if "UnsupportedTypeError" not in text:
        for name in ("NullValueError", "SpoolFullError", "FeedError"):
            if f"{name}:" in text:
                return Cause.DATA, ""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _PEER_ERRORS or any(words in text for words in _PEER_REPLACED):
        return Cause.PEER_LOST, _PEER_HINT
    return None
