"""Checkpoints, models and reports on a real HDFS; what it shares with other places is in
tests/contract.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from support.checkpoint_places import Place, weights
from support.drills import longest_run_s
from support.killed_saver import kill_savers

from tfos.errors import CheckpointError
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.files.hdfs import HdfsFiles
from tfos.files.publish import publish_directory
from tfos.testing import DrillCluster

pytestmark = pytest.mark.hdfs

PLAIN = str(Path(__file__).parents[1] / "e2e" / "apps" / "plain.py")


@pytest.fixture
def place(hdfs) -> Place:
    return Place(f"{hdfs.record.hdfs}/{uuid.uuid4().hex}/store")


@pytest.fixture
def container(hdfs, tmp_path, monkeypatch) -> Path:
    """A container's working directory as Spark on YARN leaves it, without HADOOP_CONF_DIR."""
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    directory = tmp_path / "container"
    shutil.copytree(hdfs.record.configuration, directory / "__spark_conf__" / "__hadoop_conf__")
    return directory


def before(monkeypatch, method: str, look) -> None:
    """Have `look` called with the arguments before each call of a method of the client."""
    call = getattr(HdfsFiles, method)

    def looked(self, *arguments, **options):
        look(*arguments)
        return call(self, *arguments, **options)

    monkeypatch.setattr(HdfsFiles, method, looked)


def test_a_checkpoint_appears_whole_by_one_rename_its_marker_written_last(place, monkeypatch):
    files, renames = [], []

    def uploading(local, remote):
        assert place.store().list() == []
        files.append(remote)

    def renaming(path, target):
        assert sorted(files) == sorted(place.fs.find(path))
        assert not place.fs.exists(target)
        renames.append((path, target))

    before(monkeypatch, "put_file", uploading)
    before(monkeypatch, "mv", renaming)
    saved = place.store().save(1, 1, weights("a"))
    assert len(files) == 4
    assert files[-1].endswith("/COMMITTED")
    ((aside, target),) = renames
    assert aside.startswith(f"{place.root}/fm/.staging-")
    assert target == f"{place.root}/fm/{saved.name}"
    assert place.entries() == [saved.name]


def test_a_report_takes_the_place_of_another_in_one_step(place, monkeypatch):
    store, seen = place.store(), []
    store.write_report("r1", {"number": 0})
    with monkeypatch.context() as patched:
        before(patched, "mv", lambda *_: seen.append(place.read("reports/r1.json")))
        before(patched, "rm", lambda *_: pytest.fail("removed"))
        store.write_report("r1", {"number": 1})
    assert [json.loads(text) for text in seen] == [{"number": 0}]
    assert json.loads(place.read("reports/r1.json")) == {"number": 1}
    assert place.entries() == ["reports"]


def test_a_generation_that_is_over_is_refused_and_its_upload_removed(place, monkeypatch):
    old, new, saved = place.store(run_id="r1"), place.store(run_id="r1"), []

    def overtake(local, remote):
        if remote.endswith("/COMMITTED") and not saved:
            saved.append(remote)
            new.save(5, 2, weights("b"))

    old.save(1, 1, weights("a"))
    new.list()
    before(monkeypatch, "put_file", overtake)
    with pytest.raises(CheckpointError, match="generation 1 is over"):
        old.save(6, 1, weights("a"))
    assert place.entries() == ["ckpt-000000000001-g1", "ckpt-000000000005-g2"]


@pytest.mark.slow
def test_a_saver_killed_while_it_uploads_leaves_a_whole_checkpoint(place, tmp_path, caplog):
    def unfinished() -> bool:
        names = place.entries() if place.fs.exists(f"{place.root}/fm") else []
        return any(name.startswith(".staging-") for name in names)

    last = kill_savers(
        place.url,
        kills=4,
        files=2,
        within_s=5.0,
        unfinished=unfinished,
        directory=tmp_path,
    )
    assert caplog.text == ""
    place.store(keep=2).save(last + 1, 1, weights("z"))
    assert len(place.entries()) == 2


def test_a_model_appears_whole_by_one_rename_and_leaves_another_alone(place, monkeypatch):
    def renaming(path, target):
        names = [found.removeprefix(f"{path}/") for found in place.fs.find(path)]
        assert sorted(names) == ["model.index", "shards/data-0"]
        assert not place.fs.exists(target)

    before(monkeypatch, "mv", renaming)
    for version in ("7", "8"):
        assert publish_directory(weights(version), place.url, 7) == f"{place.url}/{version}"
    assert sorted(place.fs.ls(place.root, detail=False)) == [
        f"{place.root}/{version}" for version in "78"
    ]
    assert place.fs.cat_file(f"{place.root}/7/model.index") == b"index 7"


def test_a_rename_that_fails_leaves_no_model(place, monkeypatch):
    place.fs.makedirs(place.root)

    def refuse(*arguments):
        raise OSError("safe mode\n\tat org.apache.A.b(A.java:1)")

    before(monkeypatch, "mv", refuse)
    with pytest.raises(CheckpointError, match=r"written: OSError: safe mode \(hdfs:.*--model-dir"):
        publish_directory(weights("a"), place.url, 7)
    assert place.fs.ls(place.root) == []


def test_files_of_any_name_are_kept_apart(place, tmp_path):
    names = ["a", "a;b", "a#b", "a?b", "a%62", "a b"]

    def write(directory: str) -> None:
        for name in names:
            Path(directory, name).write_text(name)

    place.store().save(1, 1, write)
    path = Path(place.store().latest_loaded(str(tmp_path)).path)
    assert {name: (path / name).read_text() for name in names} == {name: name for name in names}


def test_a_file_in_the_way_is_told_without_a_stack_trace(place):
    place.fs.pipe_file(place.root, b"")
    with pytest.raises(CheckpointError, match=r"is not a directory") as told:
        place.store().check_writable()
    assert "org.apache.hadoop.hdfs" not in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_a_reader_sees_whole_checkpoints_only_while_others_are_saved(place, caplog):
    store, done, seen = place.store(keep=2), threading.Event(), []

    def read() -> None:
        reader = place.store()
        while not done.is_set():
            seen.append(reader.latest())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        # However slow the reader is, it looks often.
        for step in range(1, 61):
            store.save(step, 1, weights("a"))
            if step >= 5 and len(seen) > 10:
                break
    finally:
        done.set()
    thread.join(60.0)
    steps = [0 if info is None else info.step for info in seen]
    assert steps == sorted(steps)
    assert len(steps) > 10
    assert caplog.text == ""


@pytest.mark.parametrize("url", ["hdfs:///{path}", "hdfs://Prod/{path}"])
def test_the_configuration_names_the_file_system(hdfs, place, tmp_path, url):
    place.store().save(1, 1, weights("a"))
    newest = place.store().save(2, 1, weights("b"))
    place.write(f"{newest.name}/shards/data-0", b"x" * 1000)
    address = hdfs.record.hdfs.removeprefix("hdfs://")
    names = {
        "fs.defaultFS": hdfs.record.hdfs,
        "dfs.nameservices": "Prod",
        "dfs.ha.namenodes.Prod": "gone,here",
        "dfs.namenode.rpc-address.Prod.gone": "127.0.0.1:9",
        "dfs.namenode.rpc-address.Prod.here": address,
    }
    text = "".join(
        f"<property><name>{n}</name><value>{v}</value></property>" for n, v in names.items()
    )
    for name in ("core-site.xml", "hdfs-site.xml"):
        (tmp_path / name).write_text(f"<configuration>{text}</configuration>")
    found = listed(url.format(path=place.root[1:]), "--verify", HADOOP_CONF_DIR=str(tmp_path))
    assert [(e["job"], e["step"], e["state"], e["resumes"]) for e in found] == [
        ("fm", 2, "damaged", False),
        ("fm", 1, "complete", True),
    ]


def listed(url: str, *options: str, **env: str) -> list[dict]:
    program = "from tfos.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "checkpoints", url, "--json", *options]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.spark
@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_keeps_everything_there_and_resumes(place, container, request):
    room = f"hdfs://{place.root}"
    limit_s = longest_run_s(request)
    settings = container / "settings.yaml"
    settings.write_text("supervision: {standby: false}\n")
    where = ("--checkpoint-dir", f"{room}/ckpt", "--model-dir", f"{room}/models", "--name", "fm")
    where += ("--conf", str(settings), "--arch", "plain")
    with DrillCluster(container, limit_s=limit_s) as cluster:  # pl_submit's own working directory
        first = cluster.submit(PLAIN, *where, "-p", "max_steps=30")
        assert first.code == 0, first.err[-4000:]
        second = cluster.submit(PLAIN, *where)
        assert second.code == 0, second.err[-4000:]
    assert first.record["checkpoint"].startswith(f"{room}/ckpt/fm/ckpt-000000000030-g")
    assert second.record["resumed_from"] == first.record["checkpoint"]
    # The batch that was in use when the checkpoint was written is taken again.
    assert second.record["result"]["seen"] == 2 * 4000 + 50
    assert second.record["result"]["weights"] == pytest.approx([2.0, -3.0, 1.0], abs=1e-3)
    assert [entry["step"] for entry in listed(f"{place.url}/ckpt")] == [161, 30]
    for run, step in ((first, 30), (second, 161)):
        assert run.record["model"] == f"{room}/models/{step}"
        assert place.fs.exists(f"{place.root}/models/{step}/state.json")
    assert len(place.fs.ls(f"{place.root}/models")) == 2


def test_the_store_is_found_where_it_was_left(place):
    store = CheckpointStore(place.url + "/", "fm")
    saved = store.save(1, 1, weights("a"))
    assert saved.path == f"{place.url}/fm/{saved.name}"
    assert place.store().latest() == saved
