"""Finding the Job in an application file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tfos.errors import ConfigError, ExitCode, JobDefinitionError
from tfos.launcher.application.loading import UserCodeError, load_job


@pytest.fixture
def app(tmp_path, monkeypatch, request):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source: str) -> Path:
        # A name of its own: modules stay in sys.modules.
        path = tmp_path / f"{re.sub(r'[^a-z0-9]', '_', request.node.name.lower())}.py"
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
    with pytest.raises(JobDefinitionError, match=words) as caught:
        load_job(app(source), name)
    assert caught.value.exit_code == ExitCode.CONFIG


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


def test_a_job_is_imported_by_its_files_name_and_its_guarded_lines_do_not_run(app):
    path = app("class A(tfos.Job): pass\nif __name__ == '__main__':\n    1 / 0\n")
    assert type(load_job(path, None)).__module__ == path.stem


def test_a_file_in_a_package_may_import_as_a_module_and_as_a_script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "shop_package" / "models"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package.parent / "sizes.py").write_text("SIZE = 7\n")
    (package / "beside_the_tower.py").write_text("DEPTH = 2\n")
    (package / "tower.py").write_text(
        "import tfos\nfrom ..sizes import SIZE\nfrom beside_the_tower import DEPTH\n"
        "class A(tfos.Job):\n    size = SIZE * DEPTH\n"
    )
    job = load_job(package / "tower.py", None)
    assert (job.size, type(job).__module__) == (14, "shop_package.models.tower")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("queue.py", "'queue', which is the name of a module of Python"),
        ("yaml.py", "'yaml', which is the name of an installed module"),
        ("my.app.py", "dot in 'my.app'"),
        ("shop.py", "'shop', which is the name of the package beside it"),
    ],
)
def test_refuses_a_name_that_is_not_the_files_alone(tmp_path, monkeypatch, name, words):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / name).write_text("import tfos\nclass A(tfos.Job): pass\n")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    with pytest.raises(ConfigError, match=words):
        load_job(tmp_path / name, None)


def test_any_other_name_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "2024-job.py").write_text("import tfos\nclass A(tfos.Job): pass\n")
    assert type(load_job(tmp_path / "2024-job.py", None)).__module__ == "2024-job"
