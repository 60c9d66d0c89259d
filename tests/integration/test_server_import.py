"""What a process that only serves imports of TensorFlow: its server; the rest when it is used."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("tensorflow")

PROGRAM = textwrap.dedent(
    """
    import json, sys
    from tfos.frameworks.tensorflow.server_import import import_for_serving

    import_for_serving(fed=sys.argv[1] == "fed")
    told = {"server": [name in sys.modules for name in (
        "tensorflow.python.training.server_lib",
        "tensorflow.python.ops.script_ops",
        "tensorflow._api.v2.data",
    )]}
    from tensorflow.python import tf2
    told["tf2"] = tf2.enabled()
    import tensorflow as tf
    told["plain"] = hasattr(tf, "__wrapped__")
    told["sum"] = int(tf.reduce_sum(tf.constant([1, 2])))
    told["same"] = tf.distribute.Server is sys.modules[
        "tensorflow.python.training.server_lib"].Server
    told["whole"] = "tensorflow._api.v2.data" in sys.modules
    try:
        tf.nowhere
    except AttributeError:
        told["nowhere"] = True
    print(json.dumps(told))
    """
)


@pytest.mark.tf
@pytest.mark.parametrize(
    ("fed", "server"), [("fed", [True, True, False]), ("", [True, False, False])]
)
def test_the_rest_is_imported_when_somebody_uses_it(fed, server):
    argv = [sys.executable, "-c", PROGRAM, fed]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "server": server,
        "tf2": True,
        "plain": False,
        "sum": 3,
        "same": True,
        "whole": True,
        "nowhere": True,
    }


@pytest.mark.tf
def test_where_tensorflow_has_plugins_all_is_imported(tmp_path):
    (tmp_path / "tensorflow-plugins").mkdir()
    program = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from tfos.frameworks.tensorflow.server_import import import_for_serving\n"
        "import_for_serving(fed=False); print('tensorflow._api.v2.data' in sys.modules)"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "True\n", done.stderr
