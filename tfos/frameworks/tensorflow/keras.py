"""Which Keras ``tf.keras`` is: the same one in every process of a run.

TensorFlow decides by an environment variable when it is first asked for ``tf.keras``, so the
variable is set in every process before the application is imported.
"""

from __future__ import annotations

from types import ModuleType

from tfos.errors import ConfigError
from tfos.frameworks.contract import Framework

__all__ = ["KERAS_VARIABLE", "check_keras", "check_same_keras", "keras_variables"]

KERAS_VARIABLE = "TF_USE_LEGACY_KERAS"


def keras_variables(keras: int) -> dict[str, str]:
    """Return the environment variables that make ``tf.keras`` Keras 2 (tf_keras) or 3."""
    return {KERAS_VARIABLE: "1" if keras == 2 else "0"}


def check_keras(framework: Framework, keras: int) -> None:
    """Check that an architecture can train with Keras `keras`.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    if keras not in framework.keras:
        raise ConfigError(
            f"--arch {framework.name} cannot train with Keras {keras}, which does not support it: "
            "use --keras 2 (tf_keras, the default), or --arch local"
        )


def check_same_keras(used: object, keras: int) -> None:
    """Check that what a notebook's code uses is not of another Keras than training processes have.

    Parameters
    ----------
    used
        A module, a class or any other object.

    Raises
    ------
    ConfigError
        If it is of the other one: its layers and optimizers would not work together there.
    """
    if isinstance(used, ModuleType):
        names = [used.__name__]
    else:
        kind = used if isinstance(used, type) else type(used)
        names = [base.__module__ for base in kind.__mro__]
    other, its_package = (3, "keras") if keras == 2 else (2, "tf_keras")
    if its_package in {name.partition(".")[0] for name in names}:
        what = getattr(used, "__name__", type(used).__name__)
        value = keras_variables(keras)[KERAS_VARIABLE]
        raise ConfigError(
            f"{what}, which the notebook uses, is of Keras {other}, and training processes have "
            f"Keras {keras}: set os.environ[{KERAS_VARIABLE!r}] = {value!r} in the first cell, "
            f"before TensorFlow is imported, or run with JobConfig(keras={other})"
        )
