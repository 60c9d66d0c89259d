"""What TensorFlow and Keras really raise, and the line that is made of it.

The texts of `test_failures_error_text.py` are theirs: this says when they change.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")

from tfos.fault.failures.error_text import headline  # noqa: E402
from tfos.launcher.training.user_failure import describe_error  # noqa: E402

pytestmark = pytest.mark.tf

HERE = "test_error_text_tensorflow.py, line "


class BadBatchError(Exception):
    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(f"{found} rows, {wanted} wanted")


def missing_key(x: Any) -> Any:
    return {"a": x}["missing"]


def own_class(x: Any) -> Any:
    raise BadBatchError(1, 2)


def wrong_shapes(x: Any) -> Any:
    return tf.matmul(x[None], tf.ones([5, 1]))


def wrong_reshape(x: Any) -> Any:
    return tf.reshape(x, [2, -1])


def outside(x: Any) -> Any:
    return tf.gather(tf.ones([3]), tf.cast(x, tf.int32) + 7)


def in_python(x: Any) -> Any:
    def inner(a: Any) -> Any:
        return {}["in python"]

    return tf.py_function(inner, [x], tf.float32)


def half_a_feed() -> Any:
    yield 1
    raise OSError("lost file")


class NoKey(tf_keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x["nokey"]


def traced(function: Any) -> Any:
    # The shape is unknown while it traces: what is wrong shows only as the graph runs.
    spec = tf.TensorSpec([None], tf.float32)
    return lambda: tf.function(function, input_signature=[spec])(tf.ones([3]))


def keras_fit() -> None:
    model = tf_keras.Sequential([NoKey()])
    model.compile(loss="mse", optimizer="sgd")
    model.fit(tf.ones([2, 4]), tf.ones([2, 2]), verbose=0)


def read_half() -> None:
    spec = tf.TensorSpec([], tf.int32)
    list(tf.data.Dataset.from_generator(half_a_feed, output_signature=spec))


CASES = {
    "a Python error while tracing": (traced(missing_key), "KeyError: 'missing'", "in missing_key"),
    "a class of one's own": (
        traced(own_class),
        "BadBatchError: 1 rows, 2 wanted",
        "in own_class",
    ),
    "shapes that TensorFlow sees at once": (
        lambda: tf.function(wrong_shapes)(tf.ones([3])),
        "ValueError: Dimensions must be equal, but are 3 and 5",
        "in wrong_shapes",
    ),
    "shapes that show in the graph": (
        traced(wrong_reshape),
        "InvalidArgumentError: Input to reshape is a tensor with 3 values",
        "in wrong_reshape",
    ),
    "an index": (traced(outside), "InvalidArgumentError: indices[0] = 8 is not in [0, 3)", "node "),
    "a Python function in the graph": (traced(in_python), "KeyError: 'in python'", HERE),
    "a data set from Python": (read_half, "OSError: lost file", "in half_a_feed"),
    "a Keras layer in fit": (keras_fit, "TypeError: Only integers, slices", "in call"),
    "a Keras layer": (
        lambda: NoKey()(tf.ones([2, 4])),
        "TypeError: Only integers, slices",
        HERE,
    ),
    "an eager operation": (
        lambda: tf.matmul(tf.ones([2, 2]), tf.ones([3, 3])),
        "InvalidArgumentError: Matrix size-incompatible",
        HERE,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_line_of_a_real_error(case: str) -> None:
    fails, begins, place = CASES[case]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of every class
        fails()
    line = headline(caught.value)
    assert line.startswith(begins), str(caught.value)
    assert place in line
    assert "\n" not in line
    told = describe_error(caught.value, "")
    assert told.lasting is not line.startswith(("OSError", "BadBatchError"))
