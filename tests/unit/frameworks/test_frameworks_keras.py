"""One Keras in every process of a run."""

from __future__ import annotations

import types

import pytest

from tfos.config import JobConfig
from tfos.errors import ConfigError
from tfos.frameworks.contract import load_framework
from tfos.frameworks.tensorflow.keras import check_keras, check_same_keras
from tfos.launcher.submit.spark_command import spark_properties


@pytest.mark.parametrize(
    ("arch", "keras", "allowed"),
    [
        ("local", 2, True),
        ("local", 3, True),
        ("session", 3, True),
        ("ps", 2, True),
        ("ps", 3, False),
        ("ring", 2, True),
        ("ring", 3, False),
    ],
)
def test_which_keras_an_architecture_trains(arch, keras, allowed):
    framework = load_framework(arch)
    if allowed:
        check_keras(framework, keras)
        return
    with pytest.raises(ConfigError, match=rf"--arch {arch} cannot train with Keras 3.*tf_keras"):
        check_keras(framework, keras)


@pytest.mark.parametrize(
    ("given", "value"), [({}, "1"), ({"keras": "2"}, "1"), ({"keras": 3}, "0")]
)
def test_sparks_python_workers_have_it_too(given, value):
    properties = spark_properties(JobConfig.model_validate(given))
    assert properties["spark.executorEnv.TF_USE_LEGACY_KERAS"] == value


@pytest.mark.parametrize(
    ("module", "keras", "words"),
    [
        ("keras.src.models.model", 3, None),
        ("tf_keras.src.engine.training", 2, None),
        ("tensorflow.python.module.module", 2, None),
        ("keras.src.models.model", 2, r"of Keras 3, .*= '1'.*JobConfig\(keras=3\)"),
        ("tf_keras.src.engine.training", 3, r"of Keras 2, .*= '0'.*JobConfig\(keras=2\)"),
    ],
)
def test_what_a_notebook_uses_must_be_of_the_same_keras(module, keras, words):
    base = type("Model", (), {"__module__": module})
    tower = type("Tower", (base,), {"__module__": "__main__"})
    for used in (tower, tower(), types.ModuleType(module)):
        if words is None:
            check_same_keras(used, keras)
            continue
        with pytest.raises(ConfigError, match=words):
            check_same_keras(used, keras)
