from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support.killed_saver import kill_savers
from support.nobody import BECOME_NOBODY
from support.small_disk import mounted

from tfos.errors import CheckpointError
from tfos.fault.checkpoints.storage_local import LocalStorage
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.files.publish import publish_directory


def filler(size_bytes: int, files: int = 1):
    def write(directory: str) -> None:
        for number in range(files):
            Path(directory, f"data-{number}").write_bytes(b"x" * (size_bytes // files))

    return write


def test_a_full_disk_is_told_and_the_last_checkpoint_survives(tmp_path):
    with mounted(tmp_path / "small", "size=1m") as small:
        store = CheckpointStore(str(small), "fm", keep=5)
        store.check_writable()
        kept = store.save(1, 1, filler(600_000))
        with pytest.raises(CheckpointError) as told:
            store.save(2, 1, filler(600_000))
        message = str(told.value)
        assert f"step 2 was not written: no space is left for {small}/fm" in message
        assert "--checkpoint-dir" in message
        assert store.latest() == kept
        assert os.listdir(small / "fm") == [kept.name]
        assert store.save(3, 1, filler(100_000)) == store.latest()
        with pytest.raises(CheckpointError, match=r"no space is left for .*--model-dir"):
            publish_directory(filler(900_000), str(small / "models"), 1)
        assert os.listdir(small / "models") == []


def test_a_full_disk_that_a_library_tells_in_its_own_way_is_told_too(tmp_path):
    with mounted(tmp_path / "small", "size=1m") as small:

        class ResourceExhaustedError(Exception):
            pass

        def write(directory: str) -> None:
            try:
                filler(2_000_000)(directory)
            except OSError as error:
                raise ResourceExhaustedError("write failed") from error

        with pytest.raises(CheckpointError, match="no space is left"):
            CheckpointStore(str(small), "fm").save(1, 1, write)


def test_a_read_only_place_is_told_at_once(tmp_path):
    with mounted(tmp_path / "ro", "size=1m,ro") as place:
        begin = time.monotonic()
        with pytest.raises(CheckpointError, match=r"read-only file system.*--checkpoint-dir"):
            CheckpointStore(str(place), "fm").check_writable()
        assert time.monotonic() - begin < 2


DENIED = f"""
import sys
from tfos.errors import CheckpointError
from tfos.fault.checkpoints.store import CheckpointStore
store = CheckpointStore(sys.argv[1], "fm")
{BECOME_NOBODY}
try:
    store.check_writable()
except CheckpointError as error:
    print(error)
"""


def test_a_forbidden_place_is_told_at_once():
    # Not in tmp_path, whose parents are closed to the user this is asked as.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        argv = [sys.executable, "-c", DENIED, place]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        os.chmod(place, 0o755)
    assert f"may not write {place}/fm" in done.stdout
    assert "--checkpoint-dir" in done.stdout


UNREADABLE = f"""
import logging, sys
from tfos.errors import CheckpointError
from tfos.fault.checkpoints.store import CheckpointStore
logging.basicConfig(format="%(message)s", stream=sys.stdout)
store = CheckpointStore(sys.argv[1], "fm")
{BECOME_NOBODY}
try:
    store.judge()
    loaded = store.latest_loaded("/nowhere")
except CheckpointError as error:
    print(error)
else:
    print("loaded", loaded.info.step)
"""


@pytest.mark.parametrize("closed", ["", "MANIFEST.json", "data-0"])
def test_one_that_may_not_be_read_is_passed_over_and_kept(closed):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        store = CheckpointStore(place, "fm", keep=1)
        kept = store.save(1, 1, filler(100))
        newest = CheckpointStore(place, "fm").save(2, 1, filler(100))
        os.chmod(kept.path, 0o755)
        os.chmod(newest.path, 0o755)
        os.chmod(Path(newest.path, closed), 0)
        argv = [sys.executable, "-c", UNREADABLE, place]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        told = done.stdout.splitlines()
        assert told[-1] == "loaded 1", done
        assert len(told) == 2
        assert "may not" in told[0]
        assert newest.path in told[0]


def test_a_saver_killed_anywhere_leaves_a_whole_checkpoint(tmp_path, caplog):
    url, entries = str(tmp_path / "store"), tmp_path / "store" / "fm"
    last = kill_savers(
        url,
        kills=30,
        files=8,
        within_s=0.15,
        unfinished=lambda: any(entries.glob(".*")),
        directory=tmp_path,
    )
    assert caplog.text == ""
    store = CheckpointStore(url, "fm", keep=2)
    store.clean()
    assert len(os.listdir(entries)) <= 3  # a kill may come before retention
    store.save(last + 1, 1, filler(1000))
    assert len(os.listdir(entries)) == 2


def test_training_waits_for_the_writing_alone(tmp_path, monkeypatch):
    go, publish = threading.Event(), LocalStorage.publish

    def hold(self, *args):
        assert go.wait(30)
        publish(self, *args)

    monkeypatch.setattr(LocalStorage, "publish", hold)
    size = 68 << 20
    begin = time.monotonic()
    plain = tmp_path / "plain"
    plain.mkdir()
    filler(size, 4)(str(plain))
    written = time.monotonic() - begin
    shutil.rmtree(plain)
    store = CheckpointStore(str(tmp_path / "store"), "fm")
    begin = time.monotonic()
    saving = store.begin_save(1, 1, filler(size, 4))
    stopped = time.monotonic() - begin
    assert not saving.done()
    go.set()
    info = saving.result(30)
    saved = time.monotonic() - begin
    begin = time.monotonic()
    store.load(info, str(tmp_path))
    loaded = time.monotonic() - begin
    print(
        f"68 MiB: write {written:.2f} s, training stopped {stopped:.2f} s, complete after "
        f"{saved:.2f} s, load {loaded:.2f} s"
    )
