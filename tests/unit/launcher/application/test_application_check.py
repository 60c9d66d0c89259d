"""Mistakes that an application's text shows, and those that it must not be suspected of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfos.base import Job
from tfos.errors import JobDefinitionError
from tfos.launcher.application.check import check_job, check_source

REPOSITORY = Path(__file__).parents[4]
BOTH = "    def pre_train(self, spark): ...\n    def train(self, ctx): ...\n"


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("x = 1\ndef f(a, a): pass\n", None, r"^app.py, line 2: duplicate argument 'a'"),
        ("return 1\n", None, r"^app.py, line 1: 'return' outside function"),
        ("x = 1\ndef f(:\n", None, r'^app.py, line 2: invalid syntax: "def f\(:" \(Python 3'),
        ("x = '\\0'\x00", None, "app.py"),
        ("x = 1\n", None, "defines no subclass of tfos.Job"),
        ("import logging, tfos\nlog = logging.getLogger()\n", None, "defines no subclass"),
        ("import keras\nclass Tower(keras.Model): pass\n", None, "defines no subclass"),
        (f"import tfos\nclass A(tfos.Job):\n{BOTH}", "B", "no Job subclass B; it has: A"),
        (
            f"import tfos\nclass A(tfos.Job):\n{BOTH}class B(A): pass\n",
            None,
            r"several Job subclasses \(A, B\); choose one: app.py:A",
        ),
        (
            "import tfos\nclass A(tfos.Job):\n    def pretrain(self, spark): ...\n"
            "    def train(self, ctx): ...\n",
            None,
            r"A defines pretrain; did you mean pre_train\?",
        ),
        (
            "from tfos import Job as J\nclass A(J):\n    def pre_train(self, spark): ...\n"
            "    def Train(self, ctx): ...\n",
            None,
            r"A defines Train; did you mean train\?",
        ),
        (
            f"import tfos as t\nclass A(t.Job):\n{BOTH}    def shut_down(self): ...\n",
            None,
            r"did you mean shutdown\?",
        ),
        (
            "import tfos\nclass A(tfos.Job):\n    def pre_train(self, spark): ...\n",
            None,
            r"A does not define train\(self, ctx\)",
        ),
        (
            "import tfos\nclass A(tfos.Job):\n    def train(self, ctx): ...\n"
            "if __name__ == '__main__':\n    helper(A)\n",
            None,
            r"A does not define pre_train\(self, spark\)",
        ),
    ],
)
def test_refuses_a_mistake(source, name, words):
    with pytest.raises(JobDefinitionError, match=words) as caught:
        check_source(source.encode(), "app.py", name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "from jobs import Base\nclass A(Base):\n    def pretrain(self, spark): ...\n",
        "from jobs import *\n",
        "import jobs\nA = jobs.make()\n",
        "import tfos\nA = type('A', (tfos.Job,), {})\n",
        "import tfos\ndef make():\n    class A(tfos.Job): ...\n    return A\nB = make()\n",
        "import tfos\nfrom mixins import Trains\nclass A(Trains, tfos.Job):\n"
        "    def pre_train(self, spark): ...\n",
        "import tfos\nfrom registry import complete\n@complete\nclass A(tfos.Job): ...\n",
        "import tfos\nclass A(tfos.Job, metaclass=M): ...\n",
        "import tfos\nclass A(tfos.Job): ...\ndef t(self, x): ...\nA.train = A.pre_train = t\n",
        "import tfos\nclass A(tfos.Job): ...\ndef add(c):\n    setattr(c, 'train', 1)\nadd(A)\n",
        "exec(open('jobs.py').read())\n",
        "import tfos\nclass Base:\n    def train(self, ctx): ...\n"
        "class A(Base, tfos.Job):\n    def pre_train(self, spark): ...\n",
        "import tfos\nclass A(tfos.Job):\n    pre_train = train = lambda self, x: None\n",
        "import tfos\ntry:\n    import cudf\nexcept ImportError:\n    class A(tfos.Job):\n"
        "        def pre_train(self, spark): ...\n        def train(self, ctx): ...\n",
        f"import tfos\nclass A(tfos.Job):\n{BOTH}class B(tfos.Job):\n{BOTH}del B\n",
    ],
)
def test_leaves_alone_what_only_running_it_shows(source):
    check_source(source.encode(), "app.py", None)


@pytest.mark.parametrize(
    "path",
    [
        *sorted((REPOSITORY / "examples").glob("*/fm*.py")),
        *sorted((REPOSITORY / "tests" / "e2e" / "apps").glob("*.py")),
    ],
    ids=lambda path: path.name,
)
def test_finds_nothing_in_what_works(path):
    check_source(path.read_bytes(), str(path), None)


def job(**methods) -> Job:
    return type("Made", (Job,), methods)()


def good(self, given): ...


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (job(pretrain=good, train=good), "Made defines pretrain; did you mean pre_train"),
        (job(pre_train=good), r"Made does not define train\(self, ctx\)"),
        (
            job(pre_train=good, train=lambda self: None),
            r"Made.train must be callable as train\(self, ctx\): too many positional arguments",
        ),
        (job(pre_train=good, train=good, shutdown=good), r"Made.shutdown .* missing"),
    ],
)
def test_an_objects_methods_are_checked(made, words):
    with pytest.raises(JobDefinitionError, match=words):
        check_job(made)


def test_a_method_may_be_any_callable():
    made = job(pre_train=good)
    made.train = lambda ctx, more=1: None
    check_job(made)
    check_job(job(pre_train=good, train=lambda self, *any_number: None, training=good))


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, "found None"), (Job, r"found the class: Job\(\) makes one"), ("app.py", "'app.py'")],
)
def test_what_is_no_job_is_refused(given, found):
    with pytest.raises(JobDefinitionError, match=f"expected a tfos.Job, .*{found}"):
        check_job(given)
