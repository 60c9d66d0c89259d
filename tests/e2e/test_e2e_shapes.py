"""An application in the shapes that people write, many at once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.timeout(200)]

TRAIN = Path(__file__).parent / "apps" / "shapes" / "shop" / "models" / "train.py"


def test_a_package_with_keras_classes_udfs_arguments_and_a_pool_trains_under_ps(submit, tmp_path):
    arguments = tmp_path / "arguments.yaml"
    arguments.write_text('args: ["--rows", "2000"]\n')
    run = submit("--conf", str(arguments), "--arch", "ps", "--num-workers", "1", str(TRAIN))
    assert run.code == 0
    assert run.record["result"] == {
        "steps": 80,
        "moved": [True] * 4,
        "squares": [0, 1, 4, 9],
        "config": True,
        "arguments": ["--rows", "2000"],
        "module": "shop.models.train",
    }
    assert "AutoGraph" not in run.text
