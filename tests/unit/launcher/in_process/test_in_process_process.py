"""What a process must not have done before a job trains in it."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

from tfos.config import JobConfig
from tfos.errors import ConfigError
from tfos.launcher.in_process.run import prepare_process


class Loader(ModuleType):
    """Stands where ``tf.keras`` will be until somebody uses it."""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(os, "environ", {})


def use_keras(monkeypatch, keras):
    tensorflow = ModuleType("tensorflow")
    tensorflow.keras = keras
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)


@pytest.mark.parametrize(
    ("module", "used", "asked"),
    [("keras._tf_keras.keras", 3, 2), ("tf_keras.api._v2.keras", 2, 3)],
)
def test_tf_keras_must_not_be_the_other_keras_already(monkeypatch, module, used, asked):
    use_keras(monkeypatch, ModuleType(module))
    with pytest.raises(ConfigError, match=f"^tf.keras is Keras {used} in this process, .* {asked}"):
        prepare_process(JobConfig(keras=asked))
    prepare_process(JobConfig(keras=used))


def test_a_keras_that_is_imported_but_is_not_tf_keras_does_not_matter(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras._tf_keras.keras", ModuleType("keras._tf_keras.keras"))
    prepare_process(JobConfig(keras=2))
    use_keras(monkeypatch, Loader("keras"))
    prepare_process(JobConfig(keras=2))
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
