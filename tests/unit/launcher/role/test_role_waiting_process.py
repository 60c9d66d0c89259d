"""The directory of a training process, and its way to it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tfos.launcher.role import process_life
from tfos.launcher.role.process_life import WaitingProcess
from tfos.topology import Role, TaskKey


class FakeProcess:
    running = False

    def __init__(self, *, name, sink) -> None:
        self.sink = sink

    def start(self, command, *, env, cwd, log_path) -> None:
        self.temporary, self.cwd, self.home = env["TMPDIR"], cwd, env.get("HOME")

    def stop(self, grace_s) -> None:
        pass


@pytest.fixture
def wait_in(monkeypatch):
    monkeypatch.setattr(process_life, "ManagedProcess", FakeProcess)
    return lambda path: WaitingProcess(TaskKey(Role.PS, 0), "ps", {"TMPDIR": "/none"}, Path(path))


@pytest.mark.parametrize("levels", [0, 9])
def test_sockets_have_room_in_the_temporary_directory(wait_in, tmp_path, levels):
    deep = tmp_path.joinpath(*["container_1795322332163_0001"] * levels)
    deep.mkdir(exist_ok=True, parents=True)
    process = wait_in(deep / "process-1")
    temporary = process.managed.temporary
    assert process.managed.cwd == str(deep / "process-1")
    assert os.path.samefile(temporary, deep / "process-1" / "tmp")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{temporary}/pymp-abcdefgh-listener-abcdefg")
    assert (deep / "process-1" / "tmp" / "pymp-abcdefgh-listener-abcdefg").is_socket()
    process.discard()
    process.discard()
    assert not (deep / "process-1").exists()
    assert not os.path.exists(temporary)


def test_what_train_writes_by_relative_paths_is_told_apart_from_our_own_files(wait_in, tmp_path):
    process = wait_in(tmp_path / "process-1")
    for name in ("spec.json", "output.log", "output.log.tail.old", "stacks.txt", "tmp/x", "core.7"):
        (process.directory / name).touch()
    assert process.files_of_job() == []
    (process.directory / "logs").mkdir()
    for name in ("metrics.csv", "tmp.h5", "logs/events"):
        (process.directory / name).touch()
    assert process.files_of_job() == ["logs", "metrics.csv", "tmp.h5"]
    process.discard()
    assert process.files_of_job() == []


def test_output_reaches_the_terminal_with_nothing_to_obey(wait_in, tmp_path, capsys):
    process = wait_in(tmp_path / "process-1")
    process.managed.sink("[ps-0] \x1b]52;c;eA==\x07\x1b[A[chief-0] forged")
    assert capsys.readouterr().err == "[ps-0] \\x1b]52;c;eA==\\x07\\x1b[A[chief-0] forged\n"
    process.discard()


def test_a_user_without_a_home_has_the_temporary_directory_for_one(wait_in, tmp_path, monkeypatch):
    assert wait_in(tmp_path / "process-1").managed.home is None  # passwd tells it
    monkeypatch.setattr(process_life, "home_directory", lambda _: None)
    managed = wait_in(tmp_path / "process-2").managed
    assert managed.home == managed.temporary


def test_a_process_that_is_silenced_shows_nothing_more(wait_in, tmp_path, capsys):
    process = wait_in(tmp_path / "process-1")
    process.managed.sink("[ps-0] before")
    process.silence()
    process.managed.sink("[ps-0] UNAVAILABLE: Socket closed")
    assert capsys.readouterr().err == "[ps-0] before\n"
    process.discard()
