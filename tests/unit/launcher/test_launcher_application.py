"""Finding the Job in an application file, and sending it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import pytest

from tfos.base import Job
from tfos.errors import ExitCode, JobDefinitionError
from tfos.launcher.application import UserCodeError, load_job, pickle_job

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def app(tmp_path, monkeypatch, request):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source: str) -> Path:
        # A name of its own: modules stay in sys.modules.
        path = tmp_path / f"{request.node.name.replace('[', '_').replace(']', '')}.py"
        path.write_text("import tfos\n" + source)
        return path

    return write


def test_finds_the_only_job(app):
    job = load_job(app("class A(tfos.Job): pass\n"), None)
    assert type(job).__name__ == "A"


def test_imported_jobs_are_not_this_files_own(app, tmp_path):
    (tmp_path / "neighbour_with_base.py").write_text("import tfos\nclass Base(tfos.Job): pass\n")
    job = load_job(app("from neighbour_with_base import Base\nclass A(Base): pass\n"), None)
    assert type(job).__name__ == "A"


def test_chooses_by_name(app):
    path = app("class A(tfos.Job): pass\nclass B(tfos.Job): pass\n")
    assert type(load_job(path, "B")).__name__ == "B"


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("x = 1\n", None, "defines no subclass"),
        ("class A(tfos.Job): pass\nclass B(tfos.Job): pass\n", None, "several Job subclasses"),
        ("class A(tfos.Job): pass\n", "C", "no Job subclass C; it has: A"),
    ],
)
def test_refuses_what_it_cannot_choose(app, source, name, words):
    with pytest.raises(JobDefinitionError, match=words):
        load_job(app(source), name)


def test_an_import_error_shows_the_users_line(app):
    path = app("def f():\n    raise KeyError('boom')\nf()\n")
    with pytest.raises(UserCodeError, match="KeyError: 'boom'") as caught:
        load_job(path, None)
    assert caught.value.exit_code == ExitCode.USER_CODE
    assert f'{path}", line 3, in f' in caught.value.user_traceback
    assert "tfos/launcher" not in caught.value.user_traceback


@pytest.mark.parametrize(
    "source", ["import sys; sys.exit(3)", "class A(tfos.Job):\n    def __init__(self): exit(3)\n"]
)
def test_an_exit_is_the_users_error_too(app, source):
    with pytest.raises(UserCodeError, match="SystemExit: 3"):
        load_job(app(source), None)


def test_the_pickle_needs_neither_the_file_nor_its_neighbours(app, tmp_path):
    (tmp_path / "neighbour_by_value.py").write_text("def double(x): return 2 * x\n")
    path = app(
        "from neighbour_by_value import double\n"
        "class A(tfos.Job):\n"
        "    def train(self, ctx): return double(21)\n"
    )
    pickled = tmp_path / "job.pkl"
    pickled.write_bytes(pickle_job(load_job(path, None)))
    path.unlink()
    (tmp_path / "neighbour_by_value.py").unlink()
    script = (
        f"import cloudpickle; print(cloudpickle.load(open({str(pickled)!r}, 'rb')).train(None))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        input=pickled.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert found.stdout == b"42\n"


def test_names_the_attribute_that_cannot_be_pickled():
    class Locked(Job):
        def __init__(self) -> None:
            self.fine = 1
            self.lock = threading.Lock()

    with pytest.raises(JobDefinitionError, match="its attribute 'lock' cannot be pickled"):
        pickle_job(Locked())


def test_a_notebooks_job_is_pickled_by_value():
    class Local(Job):
        def train(self, ctx):
            return "here"

    assert cloudpickle.loads(pickle_job(Local())).train(None) == "here"
