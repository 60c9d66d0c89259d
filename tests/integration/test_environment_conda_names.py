"""Which environment ``conda:NAME`` is, by what a real process in conda's place says it has."""

import json

import pytest

from tfos.environment_spec import parse_environment
from tfos.environments.inspection import inspect_environment
from tfos.errors import ConfigError


@pytest.fixture
def conda(tmp_path, monkeypatch):
    """Return a directory of environments' directories, and a way to say what conda has."""

    def has(*prefixes, search=()):
        for prefix in prefixes:
            (tmp_path / prefix / "conda-meta").mkdir(parents=True)
        told = {
            "root_prefix": str(tmp_path / "root"),
            "envs": [str(tmp_path / prefix) for prefix in prefixes],
            "envs_dirs": [str(tmp_path / directory) for directory in search],
        }
        (tmp_path / "told").write_text(json.dumps(told))
        script = tmp_path / "conda"
        script.write_text(f"#!/bin/sh\ncat {tmp_path}/told\n")
        script.chmod(0o755)
        monkeypatch.setenv("CONDA_EXE", str(script))

    return has


def taken(name):
    """Return which directory is looked at: none of them has an interpreter."""
    with pytest.raises(ConfigError) as caught:
        inspect_environment(parse_environment(f"conda:{name}"))
    return str(caught.value)


def test_a_name_is_looked_for_where_conda_looks_in_its_order(conda, tmp_path):
    conda("root", "mine/train", "theirs/train", "project/train", search=["mine", "theirs"])
    assert f"there is no interpreter {tmp_path}/mine/train/bin/python" in taken("train")


def test_what_is_no_environment_is_passed_over(conda, tmp_path):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    conda("root", "theirs/train", search=["mine", "theirs"])
    assert f"there is no interpreter {tmp_path}/theirs/train/bin/python" in taken("train")


def test_one_made_elsewhere_is_taken_by_its_directorys_name(conda, tmp_path):
    conda("root", "project/train", search=["mine"])
    assert f"there is no interpreter {tmp_path}/project/train/bin/python" in taken("train")


def test_several_made_elsewhere_are_listed(conda, tmp_path):
    conda("root", "a/train", "b/train", search=["mine"])
    choices = f"--env conda:{tmp_path}/a/train or --env conda:{tmp_path}/b/train"
    assert taken("train").endswith(f"conda has several of that name; use {choices}")


def test_base_is_condas_own(conda, tmp_path):
    conda("root", "mine/base", search=["mine"])
    assert f"there is no interpreter {tmp_path}/root/bin/python" in taken("base")


def test_an_unknown_name_is_told_with_those_there_are(conda):
    conda("root", "mine/train", search=["mine"])
    assert taken("tarin").endswith("conda knows no such environment (it has root, train)")
