"""What an exception says in one line; the texts are TensorFlow's, Keras's and Spark's own."""

from __future__ import annotations

import sys

import pytest

from tfos.fault.failures.error_text import (
    headline,
    last_error,
    leaves_of,
    repr_of,
    telling,
    text_of,
    user_traceback,
)

AUTOGRAPH = """in user code:

    File "/jobs/app.py", line 13, in step  *
        return columns["missing"] + 1

    KeyError: 'missing'
"""

AUTOGRAPH_OWN_CLASS = """in user code:

    File "/jobs/app.py", line 17, in step  *
        raise BadBatch(1, 2)

    BadBatch: 1 and
    2
"""

AUTOGRAPH_KERAS_LAYER = """in user code:

    File "/venv/lib/python3.11/site-packages/tf_keras/src/engine/training.py", line 1398, \
in train_function  *
        return step_function(self, iterator)
    File "/tmp/__autograph_generated_fileiy_5cyqw.py", line 15, in tf__call
        raise

    TypeError: Exception encountered when calling layer 'l' (type L).
    \n    in user code:
    \n        File "/jobs/app.py", line 55, in call  *
            def call(self, x): return x["nokey"]
    \n        TypeError: Only integers are valid indices, got 'nokey'
    \n    \n    Call arguments received by layer 'l' (type L):
      • x=tf.Tensor(shape=(None, 4), dtype=float32)
"""

KERAS_EAGER = """Exception encountered when calling layer 'outer' (type Outer).

Exception encountered when calling layer 'l' (type L).

Only integers are valid indices, got 'nokey'

Call arguments received by layer 'l' (type L):
  • x=tf.Tensor(shape=(2, 4), dtype=float32)"""

GRAPH = """Graph execution error:

Detected at node Reshape defined at (most recent call last):
  File "/jobs/app.py", line 36, in <module>

  File "/jobs/app.py", line 34, in step

  File "/venv/lib/python3.11/site-packages/tf_keras/src/engine/training.py", line 1804, in fit

Input to reshape is a tensor with 3 values, but the requested shape requires a multiple of 2
\t [[{{node Reshape}}]] [Op:__inference_deco_55]"""

GRAPH_ROOT_ERRORS = """Graph execution error:

Detected at node 'GatherV2' defined at (most recent call last):
<stack traces unavailable>
2 root error(s) found.
  (0) INVALID_ARGUMENT:  indices[0] = 7 is not in [0, 3)
\t [[{{node GatherV2}}]]
\t [[Sum/_2]]
  (1) INVALID_ARGUMENT:  indices[0] = 7 is not in [0, 3)
\t [[{{node GatherV2}}]]
0 successful operations."""

COORDINATOR = """Graph execution error:

Detected at node cond/Gather defined at (most recent call last):
  File "/usr/lib/python3.11/threading.py", line 1002, in _bootstrap

  File "/jobs/app.py", line 31, in step

Additional GRPC error information from remote target /job:ps/replica:0/task:0 while calling /x:
:UNKNOWN:Error received from peer  {grpc_status:3, grpc_message:"indices[4] = 7 is not in [0, 7)"}
2 root error(s) found.
  (0) INVALID_ARGUMENT:   indices[4] = 7 is not in [0, 7)
\t [[{{node cond/Gather}}]]
Additional GRPC error information from remote target /job:ps/replica:0/task:0 while calling /x:
:UNKNOWN:Error received from peer  {grpc_status:3, grpc_message:"indices[4] = 7 is not in [0, 7)"}
0 successful operations.
0 derived errors ignored."""

EAGER = (
    "{{function_node __wrapped__MatMul_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
    "Matrix size-incompatible: In[0]: [2,2], In[1]: [3,3] [Op:MatMul] name: "
)

GENERATOR = """{{function_node __wrapped__IteratorGetNext_device_/device:CPU:0}} OSError: lost file
Traceback (most recent call last):

  File "/venv/lib/python3.11/site-packages/tensorflow/python/ops/script_ops.py", line 269, \
in __call__
    ret = func(*args)
          ^^^^^^^^^^^

  File "/jobs/app.py", line 44, in rows
    raise OSError("lost file")

OSError: lost file


\t [[{{node PyFunc}}]] [Op:IteratorGetNext] name: """

PYTHON_WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/jobs/app.py", line 40, in <lambda>
    return df.withColumn("z", F.udf(lambda x: 1 // (x - 700), "long")("id"))
                                              ~~^^~~~~~~~~~~
ZeroDivisionError: integer division or modulo by zero

JVM stacktrace:
org.apache.spark.api.python.PythonException: Traceback (most recent call last):
"""

LOST_TASK = """org.apache.spark.api.python.PythonException: [PYTHON_EXCEPTION] An exception was \
thrown from the Python worker: Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/pyspark/worker.py", line 3317, in main
    process()
  File "/jobs/app.py", line 40, in <lambda>
ZeroDivisionError: integer division or modulo by zero

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(P.scala)
\tat java.base/java.lang.Thread.run(Thread.java:840)
"""

SUBPROCESS = """the tool failed:
Traceback (most recent call last):
  File "tool.py", line 1, in <module>
ValueError: no such thing"""


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        (
            "MultilineMessageKeyError",
            AUTOGRAPH,
            "KeyError: 'missing' (app.py, line 13, in step)",
        ),
        ("StagingError", AUTOGRAPH_OWN_CLASS, "BadBatch: 1 and (app.py, line 17, in step)"),
        (
            "TypeError",
            AUTOGRAPH_KERAS_LAYER,
            "TypeError: Only integers are valid indices, got 'nokey' (app.py, line 55, in call)",
        ),
        ("TypeError", KERAS_EAGER, "TypeError: Only integers are valid indices, got 'nokey'"),
        (
            "InvalidArgumentError",
            GRAPH,
            "InvalidArgumentError: Input to reshape is a tensor with 3 values, but the requested "
            "shape requires a multiple of 2 (node Reshape; app.py, line 34, in step)",
        ),
        (
            "InvalidArgumentError",
            GRAPH_ROOT_ERRORS,
            "InvalidArgumentError: indices[0] = 7 is not in [0, 3) (node GatherV2)",
        ),
        (
            "InvalidArgumentError",
            COORDINATOR,
            "InvalidArgumentError: indices[4] = 7 is not in [0, 7) (node cond/Gather; app.py, "
            "line 31, in step)",
        ),
        (
            "InvalidArgumentError",
            EAGER,
            "InvalidArgumentError: Matrix size-incompatible: In[0]: [2,2], In[1]: [3,3]",
        ),
        ("UnknownError", GENERATOR, "OSError: lost file (app.py, line 44, in rows)"),
        (
            "PythonException",
            PYTHON_WORKER,
            "ZeroDivisionError: integer division or modulo by zero (app.py, line 40, in <lambda>)",
        ),
        (
            "PythonException",
            LOST_TASK,
            "ZeroDivisionError: integer division or modulo by zero (app.py, line 40, in <lambda>)",
        ),
        ("ValueError", "\n\n  first \n second", "ValueError: first"),
        ("ValueError", "two problems:\n  a\n  b", "ValueError: two problems: a"),
        ("ValueError", "", "ValueError"),
        ("UnknownError", "Graph execution error:\n", "UnknownError: Graph execution error:"),
        ("ValueError", "in user code:\n", "ValueError: in user code:"),
        (
            "UnknownError",
            "Traceback (most recent call last):\n",
            "UnknownError: Traceback (most recent call last):",
        ),
    ],
)
def test_the_telling_line_of_a_text(kind, text, line):
    assert str(telling(kind, text, carries=True)) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SUBPROCESS, "RuntimeError: the tool failed: ValueError: no such thing"),
        (f"exit code 1\n{SUBPROCESS}", "RuntimeError: exit code 1"),
    ],
)
def test_a_traceback_that_an_error_only_quotes_is_not_its_own(text, line):
    assert str(telling("RuntimeError", text)) == line


# -- exceptions ------------------------------------------------------------------------------------


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


HERE = f"(test_failures_error_text.py, line {raised.__code__.co_firstlineno + 2}, in raised)"


@pytest.mark.parametrize(
    ("error", "cause", "line"),
    [
        (KeyError("x"), None, f"KeyError: 'x' {HERE}"),
        (
            RuntimeError("outer"),
            KeyError("b"),
            f"RuntimeError: outer {HERE}, caused by KeyError: 'b'",
        ),
        (RuntimeError("not 'b'"), KeyError("b"), f"RuntimeError: not 'b' {HERE}"),
        (RuntimeError("outer"), ValueError(), f"RuntimeError: outer {HERE}, caused by ValueError"),
    ],
)
def test_the_line_of_an_exception(error, cause, line):
    assert headline(raised(error, cause)) == line


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no exception groups")
def test_of_a_group_the_first_exception_is_told():
    inner = ExceptionGroup("inner", [KeyError("a"), ValueError("b")])  # noqa: F821
    group = ExceptionGroup("outer", [inner, TypeError("c")])  # noqa: F821
    assert [type(leaf).__name__ for leaf in leaves_of(group)] == [
        "KeyError",
        "ValueError",
        "TypeError",
    ]
    assert headline(group) == "KeyError: 'a', the first of 3 in ExceptionGroup"


# -- hostile ones ----------------------------------------------------------------------------------


class OfStr(str):
    def __getitem__(self, key):
        raise ValueError("never")

    def splitlines(self, keepends=False):
        raise ValueError("never")


def hostile(**methods) -> Exception:
    return type("Hostile", (Exception,), methods)("x")


def deep(self) -> str:
    return deep(self)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (lambda self: 1 / 0, "Hostile: its __str__ raised ZeroDivisionError"),
        (lambda self: 42, "Hostile: its __str__ raised TypeError"),
        (lambda self: sys.exit(3), "Hostile: its __str__ raised SystemExit"),
        (deep, "Hostile: its __str__ raised RecursionError"),
        (lambda self: OfStr("own kind of text"), "Hostile: own kind of text"),
        (lambda self: "\ud800 alone", "Hostile: \\ud800 alone"),
        (lambda self: "x" * 5_000_000, "Hostile: " + "x" * 1991),
    ],
)
def test_an_exception_whose_own_methods_fail_is_told_by_its_type(method, line):
    error = raised(hostile(__str__=method))
    assert headline(error)[:2000].removesuffix(f" {HERE}") == line
    assert "Hostile" in user_traceback(error)
    assert len(text_of(error)) < 201_000


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (lambda self: 1 / 0, "<a Hostile whose __repr__ raised ZeroDivisionError>"),
        (lambda self: None, "<a Hostile whose __repr__ raised TypeError>"),
        (lambda self: "a\nb", "a b"),
        (lambda self: "x" * 1_000, "x" * 200 + "..."),
    ],
)
def test_a_value_whose_repr_fails_is_told_by_its_type(method, text):
    assert repr_of(hostile(__repr__=method)) == text


# -- output ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            'hello\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
            "OSError: [Errno 28] No space left on device",
            "OSError: [Errno 28] No space left on device",
        ),
        ("all is well\n", ""),
        ("", ""),
    ],
)
def test_the_error_that_ends_a_programs_output(output, said):
    assert last_error(output.splitlines()) == said
