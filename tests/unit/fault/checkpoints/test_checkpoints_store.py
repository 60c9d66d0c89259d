from __future__ import annotations

import os
import stat
import threading
import tracemalloc
import uuid
from pathlib import Path

import fsspec
import pytest
from support.checkpoint_places import Place, weights

from tfos.errors import CheckpointCorruptError, CheckpointError, ConfigError
from tfos.fault.checkpoints.storage_local import LocalStorage
from tfos.fault.checkpoints.store import CheckpointStore


def test_an_upload_that_fails_leaves_nothing_and_says_where(monkeypatch):
    place = Place(f"memory://{uuid.uuid4().hex}/store")
    store = place.store()
    store.save(1, 1, weights("a"))
    uploaded = []

    def put_file(self, local, remote, **options):
        if len(uploaded) == 2:
            raise RuntimeError("503 slow down")
        uploaded.append(remote)
        self.pipe_file(remote, Path(local).read_bytes())

    monkeypatch.setattr(type(place.fs), "put_file", put_file)
    with pytest.raises(CheckpointError, match=r"503 slow down \(memory://.*--checkpoint-dir"):
        store.save(2, 1, weights("b"))
    assert place.entries() == ["ckpt-000000000001-g1"]


def test_the_marker_is_uploaded_last(monkeypatch):
    place = Place(f"memory://{uuid.uuid4().hex}/store")
    uploaded = []
    put_file = type(place.fs).put_file
    monkeypatch.setattr(
        type(place.fs),
        "put_file",
        lambda self, a, b, **o: (uploaded.append(b), put_file(self, a, b, **o))[1],
    )
    place.store().save(1, 1, weights("a"))
    assert len(uploaded) == 4
    assert uploaded[-1].endswith("/COMMITTED")


def test_removal_begins_with_the_marker(monkeypatch):
    place = Place(f"memory://{uuid.uuid4().hex}/store")
    store = place.store(keep=1)
    store.save(1, 1, weights("a"))
    removed = []
    rm = type(place.fs).rm
    monkeypatch.setattr(
        type(place.fs), "rm", lambda self, p, **o: (removed.append(p), rm(self, p, **o))[1]
    )
    store.save(2, 1, weights("b"))
    assert removed[0].endswith("ckpt-000000000001-g1/COMMITTED")


def test_local_files_are_on_disk_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1]
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append("rename"), rename(a, b))[1])
    place = Place(str(tmp_path))
    place.store().save(1, 1, weights("a"))
    at = calls.index("rename")
    synced = {c.rpartition("/")[2] for c in calls[:at]}
    assert {"model.index", "data-0", "shards", "MANIFEST.json", "COMMITTED"} <= synced
    assert calls[at + 1 :] == [str(tmp_path / "fm")]


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "f").write_text("")
    for url in (tmp_path / "f", tmp_path / "f" / "deeper"):
        with pytest.raises(CheckpointError, match=r"is not a directory .*--checkpoint-dir"):
            CheckpointStore(str(url), "fm").check_writable()
    (tmp_path / "fm").write_text("")
    with pytest.raises(CheckpointError, match="is not a directory"):
        CheckpointStore(str(tmp_path), "fm").check_writable()
    with pytest.raises(CheckpointError, match="is not a directory"):
        CheckpointStore(str(tmp_path), "fm").latest()


def test_a_directory_that_does_not_answer_is_told(tmp_path, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr("tfos.fault.checkpoints.store._PROBE_TIMEOUT_S", 0.01)
    monkeypatch.setattr(LocalStorage, "probe", lambda self: answered.wait(10) and None)
    with pytest.raises(CheckpointError, match=r"did not answer within 0\.01 s"):
        CheckpointStore(str(tmp_path), "fm").check_writable()
    answered.set()


def test_an_unknown_scheme_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"--checkpoint-dir 'nosuch://x/y' cannot be used"):
        CheckpointStore("nosuch://x/y", "fm")


def test_a_client_that_is_not_installed_is_a_configuration_error(monkeypatch):
    def url_to_fs(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    with pytest.raises(ConfigError, match="Install s3fs"):
        CheckpointStore("s3://bucket/x", "fm")


@pytest.mark.parametrize(("name", "keep"), [("../x", 3), ("", 3), ("a/b", 3), ("ok", 0)])
def test_bad_settings_are_configuration_errors(tmp_path, name, keep):
    with pytest.raises(ConfigError):
        CheckpointStore(str(tmp_path), name, keep=keep)


def test_relative_paths_and_file_urls_are_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CheckpointStore("store", "fm").save(1, 1, weights("a"))
    assert CheckpointStore(f"file://{tmp_path}/store/", "fm").latest().step == 1


def swap(path: Path, make) -> None:
    """Put something else in a file's place."""
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5)),
    ],
    ids=["fifo", "directory", "link", "device"],
)
@pytest.mark.parametrize("file", ["COMMITTED", "MANIFEST.json", "model.index"])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_opened_and_the_one_before_is_taken(tmp_path, caplog, make, file):
    store = CheckpointStore(str(tmp_path), "fm")
    kept = store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    try:
        swap(Path(newest.path, file), make)
    except PermissionError:
        pytest.skip("only root makes devices")
    assert store.judge() == (kept, (newest.name,))
    assert store.latest_loaded(str(tmp_path)).info == kept
    assert "not a regular file" in caplog.text
    assert newest.path in caplog.text
    assert len(caplog.records) == 1
    store.remove_all()
    assert os.listdir(tmp_path / "fm") == []


@pytest.mark.timeout(20)
def test_a_file_swapped_after_it_was_listed_is_not_opened_either(tmp_path):
    store = CheckpointStore(str(tmp_path), "fm")
    info = store.save(1, 1, weights("a"))
    swap(Path(info.path, "model.index"), os.mkfifo)
    with pytest.raises(CheckpointCorruptError, match=r"model.index .* is not a regular file"):
        store.load(info, str(tmp_path))


@pytest.mark.timeout(20)
def test_a_checkpoint_that_is_a_fifo_is_passed_over(tmp_path, caplog):
    store = CheckpointStore(str(tmp_path), "fm", keep=1)
    kept = store.save(1, 1, weights("a"))
    os.mkfifo(tmp_path / "fm" / "ckpt-000000000002-g1")
    assert store.latest() == kept
    assert "ckpt-000000000002-g1 is not a directory" in caplog.text
    # Of no use to anybody: it goes like a damaged one.
    last = store.save(3, 1, weights("b"))
    assert os.listdir(tmp_path / "fm") == [last.name]


def test_a_sparse_manifest_of_gigabytes_is_not_read(tmp_path, caplog):
    store = CheckpointStore(str(tmp_path), "fm")
    info = store.save(1, 1, weights("a"))
    os.truncate(Path(info.path, "MANIFEST.json"), 3 << 30)
    tracemalloc.start()
    with pytest.raises(CheckpointCorruptError, match=r"has 3,221,225,472 bytes, 16,777,216 at mo"):
        store.judge()
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
