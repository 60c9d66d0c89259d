"""What is said where the machine, not tfos, fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfos import account
from tfos.config_files import configuration_directory
from tfos.errors import ConfigError, ExitCode
from tfos.files.cache import cache_directory
from tfos.launcher.submit.prerequisites import check_account
from tfos.machine_faults import (
    check_umask,
    current_directory,
    explained_machine_faults,
    machine_fault,
)
from tfos.master import Master


@pytest.mark.parametrize(
    ("error", "code", "names"),
    [
        (OSError(errno.ENOSPC, "", "/tmp/x"), ExitCode.INFRASTRUCTURE, "no space is left for /tmp"),
        (OSError(errno.EDQUOT, "", "/tmp/x"), ExitCode.INFRASTRUCTURE, "quota"),
        (OSError(errno.EROFS, "", "/ro/x"), ExitCode.CONFIG, "/ro/x cannot be written, its file"),
        (PermissionError(errno.EACCES, "", b"/root/x"), ExitCode.CONFIG, "/root/x may not be used"),
        (OSError(errno.EFBIG, "", "/tmp/x"), ExitCode.CONFIG, "/tmp/x would be larger than"),
        (OSError(errno.EMFILE, ""), ExitCode.CONFIG, "ulimit -n"),
        (OSError(errno.ENFILE, ""), ExitCode.CONFIG, "fs.file-max"),
        (BlockingIOError(errno.EAGAIN, ""), ExitCode.CONFIG, "no further process"),
        (RuntimeError("can't start new thread"), ExitCode.CONFIG, "no further thread"),
        (MemoryError(), ExitCode.RESOURCES, "no more memory"),
        (OSError(errno.ENOMEM, ""), ExitCode.RESOURCES, "no more memory"),
    ],
)
def test_each_fault_is_named_with_what_mends_it(error, code, names):
    fault = machine_fault(error)
    assert fault.exit_code == code
    assert names in str(fault)


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "", "/x"), RuntimeError("other")]
)
def test_what_is_no_fault_of_the_machine_passes_as_it_is(error):
    assert machine_fault(error) is None
    with pytest.raises(type(error)) as caught, explained_machine_faults():
        raise error
    assert caught.value is error


def test_an_error_of_tfos_that_is_an_os_error_too_passes_as_it_is():
    from tfos.errors import RendezvousConnectionError

    with pytest.raises(RendezvousConnectionError), explained_machine_faults():
        raise RendezvousConnectionError("x")


def in_child(code: str) -> str:
    """Run `code` in a process of its own, whose limits it may lower; return its last line."""
    program = f"from tfos.machine_faults import *\nimport os, resource, tempfile\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_a_process_really_out_of_file_descriptors():
    code = """
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
with explained_machine_faults():
    files = [open("/dev/null") for _ in range(30)]
"""
    assert "may open no more than 20 files" in in_child(code)


def test_no_temporary_directory_at_all(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc/none")
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']")
    assert "(/proc/none, /tmp, /var/tmp)" in str(machine_fault(error))


@pytest.mark.parametrize("mask", [0o777, 0o700, 0o277])
def test_a_umask_that_denies_its_owner_is_refused(mask):
    before = os.umask(mask)
    try:
        with pytest.raises(ConfigError, match=f"umask is {mask:04o}"):
            check_umask()
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    check_umask()


def test_a_current_directory_that_is_gone(tmp_path):
    code = f"""
os.mkdir({str(tmp_path / "d")!r}); os.chdir({str(tmp_path / "d")!r}); os.rmdir(os.getcwd())
try:
    current_directory()
except Exception as error:
    print(error)
"""
    assert "the current directory cannot be used" in in_child(code)
    assert current_directory() == str(Path.cwd())


@pytest.fixture
def nobody(monkeypatch):
    """Run as a user id without an entry in passwd, as containers do."""

    def unknown(uid: int):
        raise KeyError(uid)

    monkeypatch.setattr(account.pwd, "getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)


def test_a_user_without_an_account_has_a_name_and_no_files_of_its_own(nobody):
    assert account.user_name() == f"uid-{os.getuid()}"
    assert account.user_name({"USER": "app"}) == "app"
    assert account.home_directory() is None
    assert account.home_directory({"HOME": "/w"}) == Path("/w")
    assert configuration_directory({}) is None
    assert cache_directory({"XDG_CACHE_HOME": "/c"}, "envs") == Path("/c/tfos/envs")
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME or HOME"):
        cache_directory({}, "envs")


def test_a_user_without_an_account_runs_on_local_alone(nobody):
    check_account(Master("local[4]"))
    for master in ("local-cluster[1,1,1024]", "yarn", "spark://h:7077"):
        with pytest.raises(ConfigError, match="no entry in /etc/passwd"):
            check_account(Master(master))


def test_a_user_with_an_account_runs_anywhere():
    check_account(Master("yarn"))
    assert account.has_entry()
