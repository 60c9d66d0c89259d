"""What the feed assumes of TensorFlow's private registry of Python functions."""

import numpy as np
import pytest

pytestmark = pytest.mark.tf

MOVED = "script_ops._py_funcs._funcs moved: adapt tfos.arrow_feed.dataset.serve to this TensorFlow"


def test_a_function_put_under_a_fixed_token_answers_the_op_of_that_token():
    tf = pytest.importorskip("tensorflow")
    script_ops = pytest.importorskip("tensorflow.python.ops.script_ops", reason=MOVED)
    functions = getattr(getattr(script_ops, "_py_funcs", None), "_funcs", None)
    assert functions is not None, MOVED

    def answer(number):
        return [number + np.int64(1), np.array([b"text"], object)]

    functions["tfos.contract"] = answer
    found = tf.raw_ops.PyFunc(
        input=[tf.constant(41, tf.int64)], token="tfos.contract", Tout=[tf.int64, tf.string]
    )
    assert int(found[0]) == 42, MOVED
    assert found[1].numpy().tolist() == [b"text"]


def test_an_op_whose_token_is_not_registered_says_so():
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"tfos\.nowhere"):
        tf.raw_ops.PyFunc(input=[], token="tfos.nowhere", Tout=[tf.int64])
