"""The checkpoint store on S3, as moto's server plays it: no rename, a marker that comes last."""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from support.killed_saver import kill_savers

from tfos.errors import AlreadyRunningError, CheckpointCorruptError, CheckpointError, ConfigError
from tfos.fault.checkpoints.listing import list_checkpoints
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.files.publish import publish_directory

NUMBERS = itertools.count()


class Bucket:
    """A bucket of its own for each test, and a way to tamper with it."""

    def __init__(self) -> None:
        self.name = f"test-{next(NUMBERS)}-{os.getpid()}"
        self.url = f"s3://{self.name}/ckpt"
        self.fs = fsspec.filesystem("s3")

    def store(self, **options) -> CheckpointStore:
        return CheckpointStore(self.url, "fm", **options)

    def keys(self) -> list[str]:
        self.fs.invalidate_cache()
        root = f"{self.name}/ckpt/fm/"
        return sorted(path.removeprefix(root) for path in self.fs.find(root))

    def entries(self) -> list[str]:
        return sorted({key.partition("/")[0] for key in self.keys()})

    def write(self, key: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.name}/ckpt/fm/{key}", data)

    def remove(self, key: str) -> None:
        self.fs.rm_file(f"{self.name}/ckpt/fm/{key}")


@pytest.fixture
def bucket(s3):
    made = Bucket()
    made.store().check_writable()
    return made


def weights(text: str):
    def write(directory: str) -> None:
        Path(directory, "model.index").write_text(f"index {text}")
        Path(directory, "shards").mkdir()
        Path(directory, "shards", "data-0").write_bytes(text.encode() * 1000)

    return write


def test_what_is_saved_is_listed_and_loaded(bucket, tmp_path):
    assert bucket.entries() == []
    assert bucket.store().latest() is None
    saved = bucket.store(run_id="r1").save(120, 2, weights("a"), {0: (1, 500)}, {"loss": 0.5})
    assert saved.path == f"{bucket.url}/fm/ckpt-000000000120-g2"
    assert bucket.store().list() == [saved]
    loaded = bucket.store().latest_loaded(str(tmp_path))
    assert loaded.info == saved
    assert Path(loaded.path, "shards", "data-0").read_bytes() == b"a" * 1000
    assert bucket.keys() == [
        f"{saved.name}/{file}"
        for file in ("COMMITTED", "MANIFEST.json", "model.index", "shards/data-0")
    ]


def test_only_the_last_are_kept_and_a_step_saved_again_replaces(bucket):
    store = bucket.store(keep=2)
    for step in (1, 2, 3):
        store.save(step, 1, weights("a"))
    again = store.save(3, 1, weights("b"))
    assert [info.name for info in store.list()] == [again.name, "ckpt-000000000002-g1"]
    assert bucket.entries() == sorted(["ckpt-000000000002-g1", again.name])


@pytest.mark.parametrize("damage", ["size", "lost", "content", "manifest"])
def test_a_damaged_one_is_passed_over_and_told(bucket, tmp_path, caplog, damage):
    store = bucket.store()
    store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    if damage == "lost":
        bucket.remove(f"{newest.name}/model.index")
    else:
        key = "MANIFEST.json" if damage == "manifest" else "shards/data-0"
        bucket.write(f"{newest.name}/{key}", b"c" * (1000 if damage == "content" else 7))
    with caplog.at_level(logging.WARNING):
        assert store.latest().step == (2 if damage == "content" else 1)
        assert store.latest_loaded(str(tmp_path)).info.step == 1
    assert "passing over a checkpoint that cannot be used: " in caplog.text
    assert newest.path in caplog.text


def test_when_none_is_whole_it_is_an_error(bucket, tmp_path):
    info = bucket.store().save(1, 1, weights("a"))
    bucket.write(f"{info.name}/shards/data-0", b"x" * 1000)
    with pytest.raises(CheckpointCorruptError, match="--fresh"):
        bucket.store().latest_loaded(str(tmp_path))


def test_remove_all_takes_checkpoints_and_leaves_reports_and_other_jobs(bucket):
    store = bucket.store()
    store.save(1, 1, weights("a"))
    bucket.remove(f"{store.save(2, 1, weights('a')).name}/COMMITTED")
    other = CheckpointStore(bucket.url, "other")
    other.save(1, 1, weights("c"))
    url = store.write_report("20260101-000000-abc", {"outcome": "done"})
    assert store.write_report("20260101-000000-abc", {"outcome": "failed"}) == url
    store.remove_all()
    assert bucket.keys() == ["reports/20260101-000000-abc.json"]
    assert json.loads(bucket.fs.cat_file(url)) == {"outcome": "failed"}
    assert store.latest() is None
    assert other.latest().step == 1


def test_a_generation_that_is_over_is_refused_before_its_marker(bucket, monkeypatch):
    old, new = bucket.store(run_id="r1"), bucket.store(run_id="r1")
    put_file, overtaken = bucket.fs.put_file, []

    def overtake(local, remote, **options):
        put_file(local, remote, **options)
        if not overtaken:
            overtaken.append(remote)
            new.save(5, 2, weights("b"))

    assert old._storage._fs is bucket.fs
    monkeypatch.setattr(bucket.fs, "put_file", overtake)
    with pytest.raises(CheckpointError, match="generation 1 is over"):
        old.save(6, 1, weights("a"))
    assert bucket.entries() == ["ckpt-000000000005-g2"]


def test_a_saver_killed_while_it_uploads_leaves_a_whole_checkpoint(bucket, tmp_path, caplog):
    def unfinished() -> bool:
        keys = bucket.keys()
        names = {key.partition("/")[0] for key in keys}
        return any(f"{name}/COMMITTED" not in keys for name in names)

    last = kill_savers(
        bucket.url,
        kills=4,
        files=16,
        within_s=1.0,
        unfinished=unfinished,
        directory=tmp_path,
    )
    assert caplog.text == ""
    bucket.store(keep=2).save(last + 1, 1, weights("z"))
    assert len(bucket.entries()) == 2


def test_people_can_list_and_verify_it(bucket):
    store = bucket.store()
    whole = store.save(1, 1, weights("a"))
    damaged = store.save(2, 1, weights("b"))
    bucket.write(f"{damaged.name}/shards/data-0", b"x" * 1000)
    bucket.remove(f"{store.save(3, 1, weights('b')).name}/COMMITTED")
    program = "from tfos.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "checkpoints", bucket.url, "--verify", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    found = [(e["step"], e["state"], e["resumes"]) for e in json.loads(done.stdout)]
    assert found == [(2, "damaged", False), (1, "complete", True), (3, "unfinished", False)]
    assert whole.path in done.stdout


def test_a_folder_that_a_console_made_is_a_directory_and_an_object_is_a_file(bucket):
    bucket.fs.pipe_file(f"{bucket.name}/ckpt/", b"")
    assert list_checkpoints(bucket.url) == []
    bucket.fs.pipe_file(f"{bucket.name}/ckpt/fm/", b"")
    saved = bucket.store().save(1, 1, weights("a"))
    for url in (bucket.url, f"{bucket.url}/"):
        bucket.fs.invalidate_cache()
        assert [entry.path for entry in list_checkpoints(url)] == [saved.path]
    with pytest.raises(ConfigError, match=r"model\.index is a file"):
        list_checkpoints(f"{saved.path}/model.index")


def model(directory: str) -> None:
    weights("a")(directory)
    for name in ("saved_model.pb", "z"):
        Path(directory, name).write_bytes(b"pb")


def asked_before(bucket, monkeypatch, told) -> None:
    """Have `told` see each object's key right before the server is asked to make it."""
    call = bucket.fs._call_s3

    async def spy(method, *args, **kwargs):
        if method in ("put_object", "copy_object"):
            told(kwargs["Key"])
        return await call(method, *args, **kwargs)

    monkeypatch.setattr(bucket.fs, "_call_s3", spy)


def test_a_model_arrives_in_its_place_with_the_file_that_makes_it_one_last(bucket, monkeypatch):
    bucket.fs.pipe_file(f"{bucket.name}/models/7/variables", b"another's")
    keys: list[str] = []
    asked_before(bucket, monkeypatch, keys.append)
    assert publish_directory(model, f"s3://{bucket.name}/models/", 7) == (
        f"s3://{bucket.name}/models/8"
    )
    files = ("model.index", "shards/data-0", "z", "saved_model.pb")
    assert keys == [f"models/8/{file}" for file in files]
    assert len(bucket.fs.find(f"{bucket.name}/models")) == 1 + len(files)


def test_a_model_that_does_not_arrive_leaves_nothing_and_its_number_free(bucket, monkeypatch):
    def refuse(key: str) -> None:
        if key == "models/7/saved_model.pb":
            raise OSError("503 Slow Down")

    url = f"s3://{bucket.name}/models"
    with monkeypatch.context() as refusing:
        asked_before(bucket, refusing, refuse)
        with pytest.raises(CheckpointError, match=r"not written: OSError: 503 .*--model-dir"):
            publish_directory(model, url, 7)
    assert bucket.fs.find(f"{bucket.name}/models") == []
    assert publish_directory(model, url, 7) == f"{url}/7"


def told_of_a_place_that_cannot_be_written(bucket, endpoint: str) -> str:
    program = (
        "import sys; from tfos.fault.checkpoints.store import CheckpointStore\n"
        "CheckpointStore(sys.argv[1], 'fm').check_writable()"
    )
    # How often its client tries, and how long it waits between, is left to chance otherwise.
    env = {**os.environ, "AWS_ENDPOINT_URL": endpoint, "AWS_MAX_ATTEMPTS": "1"}
    argv = [sys.executable, "-c", program, bucket.url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, env=env)
    assert done.returncode != 0
    return done.stderr


def test_a_server_that_refuses_is_told(bucket):
    told = told_of_a_place_that_cannot_be_written(bucket, "http://127.0.0.1:9")
    assert "CheckpointError: checkpoints could not be kept: " in told
    assert f"({bucket.url}/fm, set by --checkpoint-dir)" in told


def test_a_server_that_is_silent_is_told_in_time(bucket):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        told = told_of_a_place_that_cannot_be_written(bucket, endpoint)
    assert f"{bucket.url}/fm did not answer within 20 s; let --checkpoint-dir" in told


def test_one_run_at_a_time_holds_the_lease(bucket):
    with bucket.store().lease("run-1", print) as first:
        first._write()
        assert bucket.keys() == ["lease-run-1/even", "lease-run-1/odd"]
        with pytest.raises(AlreadyRunningError, match="run run-1, on "):
            bucket.store().lease("run-2", print).__enter__()
        assert bucket.entries() == ["lease-run-1"]
    assert bucket.entries() == []
    with bucket.store().lease("run-2", print):
        assert bucket.entries() == ["lease-run-2"]
