"""Which Keras ``tf.keras`` is: the same one in every process of a run.

TensorFlow decides by an environment variable when it is first asked for ``tf.keras``, so the
variable is set in every process before the application is imported.
"""

from __future__ import annotations

from tfos.errors import ConfigError
from tfos.frameworks.contract import Framework

__all__ = ["KERAS_VARIABLE", "check_keras", "check_keras_class", "keras_variables"]

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


def check_keras_class(defined: type, keras: int) -> None:
    """Check that a class of a notebook derives from the Keras that training processes have.

    Raises
    ------
    ConfigError
        If it derives from the other one: its layers and optimizers would not work together there.
    """
    packages = {base.__module__.partition(".")[0] for base in defined.__mro__}
    other, its_package = (3, "keras") if keras == 2 else (2, "tf_keras")
    if its_package in packages:
        value = keras_variables(keras)[KERAS_VARIABLE]
        raise ConfigError(
            f"{defined.__name__} is a class of Keras {other}, and training processes have Keras "
            f"{keras}: set os.environ[{KERAS_VARIABLE!r}] = {value!r} in the first cell, before "
            f"TensorFlow is imported, or run with JobConfig(keras={other}) (--keras {other})"
        )
