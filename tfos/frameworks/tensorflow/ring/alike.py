"""A check that the ranks of a ring train one model: the same weights on each after a step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfos.errors import ConfigError

__all__ = ["check_alike"]

_ULPS_APART = 16
"""How far variables may be apart that are to be the same, in steps of their precision: as much as
another order of a sum makes, far less than a gradient that was not averaged."""


def check_alike(hvd: Any, variables: Iterable[Any], who: str, advice: str) -> None:
    """Compare trainable variables with rank 0's; every rank calls it, with them in one order.

    Others, such as the moving averages of a batch normalisation, are each rank's own; rank 0's are
    kept.

    Parameters
    ----------
    hvd
        ``horovod.tensorflow``, initialised.
    variables
        The variables; those that are not trainable numbers are left out.
    who
        This rank, for the message.
    advice
        What is averaged, and how more is.

    Raises
    ------
    ConfigError
        If one is not what it is at rank 0.
    """
    for number, variable in enumerate(variables):
        if variable.trainable and variable.dtype.is_floating:
            _check_same(hvd, variable, f"tfos.same.{number}", who, advice)


def _check_same(hvd: Any, variable: Any, name: str, who: str, advice: str) -> None:
    import tensorflow as tf

    first = hvd.broadcast(variable.read_value(), 0, name=name)
    apart = tf.reduce_max(tf.abs(variable - first))
    epsilon = np.finfo(variable.dtype.as_numpy_dtype).eps
    if apart > _ULPS_APART * epsilon * tf.reduce_max(tf.abs(first)):
        raise ConfigError(
            f"{variable.name} of {who} is not what it is at rank 0 after a step: {advice}, or "
            "average by ctx.hvd.allreduce"
        )
