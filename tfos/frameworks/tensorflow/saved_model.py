"""See that a SavedModel can be loaded, before anybody does."""

from __future__ import annotations

import os

from tfos.errors import ConfigError
from tfos.frameworks.tensorflow.warm_start import differences

__all__ = ["check_saved_model"]


def check_saved_model(directory: str) -> None:
    """Load a SavedModel's functions and signatures, and compare its variables with their values.

    The values themselves are not read: a large model costs no second copy of its tables. Blocks for
    as long as that takes, seconds at most.

    Raises
    ------
    ConfigError
        If it cannot be loaded, or a variable's value has another shape than the variable.
    """
    import tensorflow as tf

    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
    try:
        loaded = tf.saved_model.load(directory, options=options)
    except Exception as error:  # whatever the model is made of
        told = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"the exported model cannot be loaded and is not published: "
            f"{type(error).__name__}: {told}"
        ) from error
    variables = os.path.join(directory, "variables", "variables")
    if os.path.exists(f"{variables}.index"):
        told = differences(variables, loaded, shapes_only=True)
        if told:
            raise ConfigError(
                "the exported model cannot be loaded and is not published: the value of a "
                f"variable has another shape than the variable: {told}"
            )
