"""Checks of the arguments of public methods: one line that names method, argument and value. Pure.

Wrong types raise TypeError and wrong values ValueError, as Python's own functions do: they are
errors of the calling code, which the traceback shows.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

__all__ = ["Arguments", "numbers_by_name", "shown", "suggests_options"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LONGEST = 60


class Arguments:
    """Check the arguments of one call. Every method returns the value in its plain type.

    Parameters
    ----------
    method
        As users write it, such as ``ctx.fit``.
    """

    def __init__(self, method: str) -> None:
        self._method = method

    def integer(self, name: str, value: Any, least: int, most: int | None = None) -> int:
        """Check for an integer of Python's or NumPy's, which a bool is not."""
        bounds = f"of {least} or more" if most is None else f"between {least} and {most}"
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise self.wrong_type(name, value, f"an integer {bounds}")
        number = int(value)
        if number < least or (most is not None and number > most):
            raise self.wrong_value(name, value, f"an integer {bounds}")
        return number

    def integer_or_none(self, name: str, value: Any, least: int, meaning: str) -> int | None:
        """Check for an integer, or None, which means `meaning`."""
        if value is None:
            return None
        try:
            return self.integer(name, value, least)
        except (TypeError, ValueError) as error:
            kind = type(error)
            raise kind(f"{error}; None means {meaning}") from None

    def flag(self, name: str, value: Any) -> bool:
        """Check for True or False."""
        if isinstance(value, bool):
            return value
        if _is_numpys(value, "bool_"):
            return bool(value)
        raise self.wrong_type(name, value, "True or False")

    def text(self, name: str, value: Any) -> str:
        """Check for text that is not empty."""
        if not isinstance(value, str):
            raise self.wrong_type(name, value, "a str")
        if not value:
            raise self.wrong_value(name, value, "a name")
        return str(value)

    def one_of(self, name: str, value: Any, choices: Sequence[str]) -> Any:
        """Check for one of several words."""
        if value not in choices:
            error = self.wrong_value if isinstance(value, str) else self.wrong_type
            raise error(name, value, " or ".join(map(repr, choices)))
        return value

    def names(self, name: str, value: Any) -> tuple[str, ...]:
        """Check for a sequence of column names, which one str is not."""
        what = 'a list of column names, such as ["a", "b"]'
        if isinstance(value, str | bytes) or not (
            isinstance(value, Sequence) or _is_numpys(value, "ndarray")
        ):
            raise self.wrong_type(name, value, what)
        for each in value:
            if not isinstance(each, str):
                raise self.wrong_type(name, value, what)
        return tuple(map(str, value))

    def mapping(self, name: str, value: Any, what: str) -> dict[str, Any]:
        """Check for a mapping with str keys."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.wrong_type(name, value, what)
        return dict(value)

    def function(self, name: str, value: Any, what: str) -> Any:
        """Check for something that can be called."""
        if not callable(value):
            raise self.wrong_type(name, value, what)
        return value

    def function_or_none(self, name: str, value: Any, what: str) -> Any:
        """Check for something that can be called, or None."""
        return None if value is None else self.function(name, value, f"{what}, or None")

    def wrong_type(self, name: str, value: Any, what: str) -> TypeError:
        """Return the error of a value that is not `what`."""
        return TypeError(self._line(name, value, what))

    def wrong_value(self, name: str, value: Any, what: str) -> ValueError:
        """Return the error of a value of the right type that is not `what`."""
        return ValueError(self._line(name, value, what))

    def _line(self, name: str, value: Any, what: str) -> str:
        return f"{self._method}: {name} must be {what}, not {shown(value)}"


def numbers_by_name(subject: str, found: Any) -> dict[str, float]:
    """Return metrics as floats: NumPy's and TensorFlow's scalars are numbers, text is not.

    Parameters
    ----------
    subject
        What gave them, for messages: ``ctx.fit: evaluate must return``.
    found
        What it gave.

    Raises
    ------
    TypeError
        If it is not a mapping of names to single numbers.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"{subject} a mapping of metric names to numbers, not {shown(found)}")
    return {_metric_name(subject, name): _number(subject, name, v) for name, v in found.items()}


def _metric_name(subject: str, name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{subject} metrics named by str, not by {shown(name)}")
    return name


def _is_numpys(value: Any, kind: str) -> bool:
    """Whether a value is of a class of NumPy's; without importing it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, getattr(numpy, kind))


def _number(subject: str, name: str, value: Any) -> float:
    import numpy as np

    numeric = None if isinstance(value, str | bytes) or value is None else np.asarray(value)
    if numeric is None or numeric.size != 1 or numeric.dtype.kind not in "biuf":
        # TensorFlow's bfloat16 is of no kind of NumPy's own.
        if numeric is not None and numeric.size == 1 and numeric.dtype.name == "bfloat16":
            return float(numeric.astype(np.float32).reshape(()))
        raise TypeError(f"{subject} numbers: {name!r} is {shown(value)}")
    return float(numeric.reshape(()))


def shown(value: Any) -> str:
    """Return a value as a message shows it: on one line, cut, with its type where that tells."""
    if value is None or isinstance(value, bool):
        return repr(value)
    kind = type(value).__name__
    try:
        text = " ".join(repr(value).split())
    except Exception:
        return f"a value of type {kind}"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return f"{text} ({kind})"


def suggests_options(method: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator: a call with an unknown option names the nearest one, or all of them."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        known = [name for name in inspect.signature(function).parameters if name != "self"]

        @functools.wraps(function)
        def call(*args: _P.args, **options: _P.kwargs) -> _R:
            for name in options:
                if name not in known:
                    raise TypeError(f"{method} has no option {name!r}: {_nearest(name, known)}")
            return function(*args, **options)

        return call

    return decorate


def _nearest(name: str, options: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(options)}"
