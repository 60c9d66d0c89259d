"""Directories in shared places: nobody's name can be foreseen, and nobody else's is used."""

import os

import pytest

from tfos.errors import ConfigError, InfrastructureError
from tfos.files.cache import locked
from tfos.files.private import make_private, private_name, refuse_foreign

NOBODY = 65534


@pytest.fixture
def foreign(tmp_path):
    """A directory of another user, whom everyone may write there, as an attacker would want."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to another user")
    directory = tmp_path / "foreign"
    directory.mkdir()
    directory.chmod(0o777)
    os.chown(directory, NOBODY, NOBODY)
    return directory


def test_a_name_says_what_it_is_for_and_cannot_be_foreseen():
    names = {private_name("run-1-worker-0") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("tfos-run-1-worker-0-") for name in names)


def test_it_is_for_this_user_alone(tmp_path):
    before = os.umask(0)
    try:
        make_private(tmp_path / "new" / "own", instead="")
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "own").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["directory", "link", "dangling link"])
def test_what_is_there_already_is_not_used(tmp_path, planted):
    target, own = tmp_path / "target", tmp_path / "own"
    if planted == "directory":
        own.mkdir()
    else:
        own.symlink_to(target)
    if planted == "link":
        target.mkdir()
    with pytest.raises(FileExistsError):
        make_private(own, instead="")
    assert not target.exists() or not list(target.iterdir())


def test_another_users_directory_is_refused_by_name_and_way_out(foreign):
    told = rf"{foreign} belongs to another user, nobody, who could replace .*: set TMPDIR"
    with pytest.raises(ConfigError, match=told):
        make_private(foreign / "own", instead="set TMPDIR")
    assert list(foreign.iterdir()) == []


def test_so_is_another_users_link_to_a_good_one(tmp_path, foreign):
    good = tmp_path / "good"
    good.mkdir()
    (foreign / "link").symlink_to(good)
    os.chown(foreign / "link", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(ConfigError, match="another user"):
        make_private(foreign / "link" / "own", instead="")


def test_a_cache_of_another_user_is_neither_read_nor_locked(tmp_path, foreign):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (foreign / ".lock").symlink_to(victim)
    with (
        pytest.raises(InfrastructureError, match="another user"),
        locked(foreign, lambda: None, error=InfrastructureError, instead=""),
    ):
        pass
    assert victim.read_text() == "mine"


def test_a_directory_that_is_not_there_is_nobodys(tmp_path):
    refuse_foreign(tmp_path / "none", instead="")
