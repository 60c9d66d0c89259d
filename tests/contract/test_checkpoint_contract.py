"""What every place for checkpoints does, local, in fsspec's memory and on a real HDFS."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
from pathlib import Path

import pytest
from support.checkpoint_places import Place, weights

from tfos.errors import CheckpointCorruptError, CheckpointError
from tfos.fault.checkpoints.manifest import commit_marker
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.read_plan import FeedPosition


def commit(place: Place, name: str, manifest: bytes) -> None:
    place.write(f"{name}/MANIFEST.json", manifest)
    place.write(f"{name}/COMMITTED", commit_marker(manifest))


def test_what_is_saved_is_loaded(place, tmp_path):
    store = place.store(run_id="r1")
    saved = store.save(
        120, 2, weights("a"), {0: FeedPosition(1, 500), 3: (0, 7)}, {"loss": 0.5, "note": "é"}
    )
    assert saved.name == "ckpt-000000000120-g2"
    assert saved.path == store.location + "/ckpt-000000000120-g2"
    assert saved.size_bytes == 1007
    found = place.store().latest()
    assert found == saved
    assert (found.step, found.generation, found.run_id) == (120, 2, "r1")
    assert found.positions == {0: FeedPosition(1, 500), 3: FeedPosition(0, 7)}
    assert found.metadata == {"loss": 0.5, "note": "é"}
    loaded = place.store().latest_loaded(str(tmp_path))
    assert loaded.info == saved
    assert Path(loaded.path, "shards", "data-0").read_bytes() == b"a" * 1000
    assert Path(loaded.path, "model.index").read_text() == "index a"
    assert place.entries() == ["ckpt-000000000120-g2"]


def test_who_wrote_it_is_kept(place):
    made_by = {"arch": "ps", "tfos": "1.0"}
    place.store(made_by=made_by).save(1, 1, weights("a"))
    assert place.store().latest().made_by == made_by


def test_one_of_before_that_was_kept_is_still_read(place):
    store = place.store()
    info = store.save(1, 1, weights("a"))
    data = json.loads(place.read(f"{info.name}/MANIFEST.json"))
    del data["made_by"]
    commit(place, info.name, json.dumps(data).encode())
    assert store.latest() == info


def test_nothing_there_is_none(place, tmp_path):
    store = place.store()
    assert store.latest() is None
    assert store.latest_loaded(str(tmp_path)) is None
    assert store.list() == []
    store.clean()
    store.remove_all()


def test_only_the_last_are_kept(place):
    store = place.store(keep=2)
    for step in range(0, 50, 10):
        store.save(step, 1, weights("a"))
    assert [info.step for info in store.list()] == [40, 30]
    assert place.entries() == ["ckpt-000000000030-g1", "ckpt-000000000040-g1"]


def test_the_newest_is_the_one_saved_last(place):
    store = place.store(keep=2)
    store.save(1000, 1, weights("a"))
    store.save(900, 2, weights("b"))
    store.save(950, 2, weights("c"))
    assert [info.step for info in store.list()] == [950, 900]


def test_a_step_saved_again_takes_the_place_of_the_first(place, tmp_path):
    store = place.store()
    store.save(5, 1, weights("a"))
    for text in "bc":
        again = store.save(5, 1, weights(text))
        assert [info.name for info in store.list()] == [again.name]
        path = store.load(again, str(tmp_path))
        assert Path(path, "shards", "data-0").read_bytes() == text.encode() * 1000
    assert len(place.entries()) == 1


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda p, n: p.write(f"{n}/model.index", b"short"), "model.index .* has 5 bytes"),
        (lambda p, n: p.remove(f"{n}/shards/data-0"), "shards/data-0 .* is missing"),
        (lambda p, n: p.remove(f"{n}/MANIFEST.json"), "has no MANIFEST.json"),
        (lambda p, n: p.write(f"{n}/MANIFEST.json", b"{}"), "not the one that was committed"),
        (lambda p, n: p.write(f"{n}/COMMITTED", b""), "not the one that was committed"),
    ],
)
def test_a_damaged_one_is_passed_over_and_told(place, tmp_path, caplog, tamper, told):
    store = place.store()
    store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    tamper(place, newest.name)
    with caplog.at_level(logging.WARNING):
        assert store.latest().step == 1
    assert newest.path in caplog.text
    assert re.search(told, caplog.text)
    assert store.latest_loaded(str(tmp_path)).info.step == 1


def test_a_changed_byte_is_found_when_loading_and_the_one_before_is_used(place, tmp_path, caplog):
    store = place.store()
    store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    place.write(f"{newest.name}/shards/data-0", b"b" * 999 + b"c")
    assert store.latest() == newest
    with pytest.raises(
        CheckpointCorruptError, match=r"shards/data-0 .* not what was saved"
    ) as told:
        store.load(newest, str(tmp_path))
    assert told.value.path == newest.path
    loaded = store.latest_loaded(str(tmp_path))
    assert loaded.info.step == 1
    assert "not what was saved" in caplog.text
    # Training goes on from there; the damaged one must not push out the good ones.
    store.save(2, 2, weights("d"))
    assert store.latest_loaded(str(tmp_path)).info.generation == 2


def test_when_none_is_whole_it_is_an_error_not_a_fresh_start(place, tmp_path):
    store = place.store()
    for step in (1, 2):
        info = store.save(step, 1, weights("a"))
        place.write(f"{info.name}/shards/data-0", b"x" * 1000)
    with pytest.raises(CheckpointCorruptError, match=r"none of the 2 checkpoints .*--fresh"):
        store.latest_loaded(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": -1}, "step is -1"),
        ({"step": 10**30}, "step is 1000"),
        ({"step": "7"}, "'7' is no whole number"),
        ({"step": True}, "'True' is no whole number"),
        ({"generation": -2}, "generation is -2"),
        ({"sequence": 10**19}, "sequence is 1000"),
        ({"created": float("nan")}, "created is nan"),
        ({"created": 10**400}, "OverflowError"),
        ({"run_id": ["r"]}, "is no text"),
        ({"run_id": "r" * 2000}, "run_id has 2000 characters"),
        ({"positions": {"0": [10**9, 0]}}, "epoch of feed 0 is 1000000000"),
        ({"positions": {"0": [0, 2**63]}}, "row of feed 0 is 9223372036854775808"),
        ({"positions": {"-1": [0, 0]}}, "feed index is -1"),
        ({"files": {}}, "it names no file"),
        ({"files": {"model.index": {"size_bytes": -1, "sha256": "0" * 64}}}, "size of model.index"),
        ({"files": {"model.index": {"size_bytes": 1, "sha256": "0"}}}, "64 hexadecimal digits"),
        ({"metadata": 5}, "TypeError"),
        ({"made_by": {"arch": 5}}, "is no text"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_a_manifest_claims_is_bounded(place, change, told, caplog):
    store = place.store()
    store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    data = {**json.loads(place.read(f"{newest.name}/MANIFEST.json")), **change}
    commit(place, newest.name, json.dumps(data).encode())
    assert store.latest().step == 1
    assert newest.path in caplog.text
    assert told in caplog.text


def test_links_that_lead_round_in_a_circle_are_passed_over(tmp_path, caplog):
    place = Place(str(tmp_path))
    kept = place.store().save(1, 1, weights("a"))
    os.symlink("ckpt-000000000002-g1", tmp_path / "fm" / "ckpt-000000000002-g1")
    assert place.store().latest() == kept
    assert "ckpt-000000000002-g1 cannot be followed" in caplog.text


def test_one_that_claims_to_be_the_last_of_all_is_named(place):
    store = place.store()
    saved = store.save(1, 1, weights("a"))
    data = json.loads(place.read(f"{saved.name}/MANIFEST.json"))
    commit(place, saved.name, json.dumps({**data, "sequence": 10**15}).encode())
    assert store.latest().step == 1
    with pytest.raises(CheckpointError, match=rf"follow \S*{saved.name}, .* remove it"):
        store.save(2, 1, weights("b"))


@pytest.mark.parametrize("file", ["MANIFEST.json", "COMMITTED"])
def test_a_file_too_large_to_be_one_of_ours_is_not_read(place, file, monkeypatch, caplog):
    monkeypatch.setattr("tfos.fault.checkpoints.scan.MANIFEST_MAX_BYTES", 4000)
    store = place.store()
    store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    place.write(f"{newest.name}/{file}", b" " * 5000)
    assert store.latest().step == 1
    assert re.search(rf"{newest.name}/{file} has 5,000 bytes, [14],0\d\d at most", caplog.text)


def test_a_checkpoint_that_is_a_file_is_passed_over(place, caplog):
    store = place.store()
    kept = store.save(1, 1, weights("a"))
    place.write("ckpt-000000000002-g1", b"not a directory")
    assert store.latest() == kept
    assert "ckpt-000000000002-g1 is not a directory" in caplog.text


def test_what_a_resume_would_meet_is_judged_once(place, caplog):
    store = place.store()
    assert store.judge() == (None, ())
    kept = store.save(1, 1, weights("a"))
    newest = store.save(2, 1, weights("b"))
    place.remove(f"{newest.name}/MANIFEST.json")
    assert store.judge() == (kept, (newest.name,))
    assert store.latest() == kept
    # The run's other processes know what the driver has said.
    assert place.store(passed_over=[newest.name]).latest() == kept
    assert caplog.text.count("passing over") == 1
    place.remove(f"{kept.name}/MANIFEST.json")
    with pytest.raises(CheckpointCorruptError, match=r"none of the 2 checkpoints .*--fresh"):
        store.judge()
    place.remove(f"{newest.name}/COMMITTED")
    with pytest.raises(CheckpointCorruptError, match=rf"no checkpoint in .*{kept.name} has no MAN"):
        store.judge()


def test_metadata_that_could_not_be_read_back_is_refused(place):
    metadata = {"a": "x" * (17 << 20)}
    with pytest.raises(ValueError, match="keep large values in a file of the checkpoint"):
        place.store().save(1, 1, lambda d: pytest.fail("written"), metadata=metadata)


def test_one_without_its_marker_is_absent_and_removed_by_the_next_process(place, caplog):
    store = place.store()
    store.save(1, 1, weights("a"))
    place.remove(f"{store.save(2, 1, weights('b')).name}/COMMITTED")
    assert store.latest().step == 1
    assert caplog.text == ""
    # It may be another generation's upload by now: a process tidies before its first save alone.
    store.save(3, 1, weights("c"))
    assert "ckpt-000000000002-g1" in place.entries()
    place.store().save(3, 1, weights("c"))
    assert place.entries() == ["ckpt-000000000001-g1", "ckpt-000000000003-g1-r2"]


def test_clean_removes_what_interrupted_saves_left(place):
    store = place.store()
    kept = store.save(1, 1, weights("a")).name
    place.remove(f"{store.save(2, 1, weights('b')).name}/COMMITTED")
    place.fs.makedirs(f"{place.root}/fm/.staging-abc", exist_ok=True)
    place.write(".staging-abc/half", b"x")
    place.write(".probe-abc", b"x")
    place.write("notes.txt", b"mine")
    store.clean()
    assert place.entries() == [kept, "notes.txt"]


def test_damaged_ones_go_once_enough_are_whole(place):
    store = place.store(keep=2)
    place.write(f"{store.save(1, 1, weights('a')).name}/MANIFEST.json", b"")
    store.save(2, 1, weights("b"))
    assert "ckpt-000000000001-g1" in place.entries()
    store.save(3, 1, weights("c"))
    assert place.entries() == ["ckpt-000000000002-g1", "ckpt-000000000003-g1"]


def test_one_of_a_newer_tfos_is_neither_read_nor_passed_over(place):
    store = place.store()
    info = store.save(1, 1, weights("a"))
    manifest = json.dumps({**json.loads(place.read(f"{info.name}/MANIFEST.json")), "format": 2})
    commit(place, info.name, manifest.encode())
    with pytest.raises(CheckpointError, match="format 2, this tfos reads up to 1"):
        store.latest()


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a/../../b", "", "a//b", "a\\b"])
def test_a_manifest_cannot_name_files_elsewhere(place, name, caplog):
    store = place.store()
    info = store.save(1, 1, weights("a"))
    data = json.loads(place.read(f"{info.name}/MANIFEST.json"))
    data["files"][name] = {"size_bytes": 1, "sha256": ""}
    commit(place, info.name, json.dumps(data).encode())
    assert store.latest() is None
    assert "not a path inside the checkpoint" in caplog.text


def test_an_older_generation_of_the_run_is_refused(place):
    old, new = place.store(run_id="r1"), place.store(run_id="r1")
    old.save(10, 1, weights("a"))
    new.save(11, 2, weights("b"))
    with pytest.raises(CheckpointError, match="generation 1 is over: 2 is live"):
        old.save(12, 1, weights("c"))
    assert [info.step for info in new.list()] == [11, 10]
    place.store(run_id="r2").save(13, 1, weights("d"))  # another run counts anew
    new.save(14, 2, weights("e"))


def test_a_generation_that_ends_while_it_writes_is_refused(place):
    old, new = place.store(run_id="r1"), place.store(run_id="r1")

    def write(directory: str) -> None:
        weights("a")(directory)
        new.save(5, 2, weights("b"))

    with pytest.raises(CheckpointError, match="generation 1 is over"):
        old.save(6, 1, write)
    assert place.entries() == ["ckpt-000000000005-g2"]


def test_what_write_raises_passes_and_leaves_nothing(place):
    store = place.store()

    def write(directory: str) -> None:
        weights("a")(directory)
        raise KeyError("variable")

    with pytest.raises(KeyError, match="variable"):
        store.save(1, 1, write)
    assert store.latest() is None
    assert not place.fs.exists(f"{place.root}/fm") or place.entries() == []
    store.save(1, 1, weights("a"))


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (OSError(errno.ENOSPC, "full"), 1 << 40),
        (RuntimeError("RESOURCE: full"), 0),
        # By now the library has removed what it had written.
        (RuntimeError("RESOURCE: /x/y; No space left on device"), 1 << 40),
    ],
)
def test_a_full_disk_is_told_in_words(place, monkeypatch, error, free):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))

    def write(directory: str) -> None:
        raise error

    with pytest.raises(CheckpointError, match=r"step 7 was not written: no space is left for /"):
        place.store().save(7, 1, write)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda d: None, "found none"),
        (lambda d: Path(d, "COMMITTED").touch(), "none of them MANIFEST.json or COMMITTED"),
        (lambda d: os.symlink("/etc/passwd", Path(d, "x")), "neither a regular file"),
    ],
)
def test_what_cannot_be_a_checkpoint_is_refused(place, write, told):
    with pytest.raises(CheckpointError, match=told):
        place.store().save(1, 1, write)
    assert place.store().latest() is None


@pytest.mark.parametrize(
    ("step", "metadata", "kind"),
    [(-1, {}, ValueError), (1.5, {}, TypeError), (1, {"a": object()}, TypeError)],
)
def test_bad_arguments_are_told_before_any_work(place, step, metadata, kind):
    with pytest.raises(kind):
        place.store().save(step, 1, lambda d: pytest.fail("written"), metadata=metadata)


def test_remove_all_takes_this_jobs_checkpoints_and_nothing_else(place):
    store = place.store()
    store.save(1, 1, weights("a"))
    store.save(2, 1, weights("b"))
    place.write("notes.txt", b"mine")
    other = CheckpointStore(place.url, "other")
    other.save(1, 1, weights("c"))
    store.remove_all()
    assert place.entries() == ["notes.txt"]
    assert store.latest() is None
    assert other.latest().step == 1


def test_check_writable_makes_the_directory_and_leaves_it_empty(place):
    place.store().check_writable()
    assert place.entries() == []


def test_two_threads_save_one_after_the_other(place):
    store = place.store(keep=10)
    inside, most = [], []

    def write(directory: str) -> None:
        inside.append(1)
        most.append(len(inside))
        weights("a")(directory)
        inside.pop()

    threads = [threading.Thread(target=store.save, args=(n, 1, write)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert sorted(info.sequence for info in store.list()) == [1, 2, 3, 4, 5, 6]


def test_a_failure_to_tidy_does_not_undo_a_complete_save(place, monkeypatch, caplog):
    store = place.store(keep=1)
    store.save(1, 1, weights("a"))
    monkeypatch.setattr(
        store._storage, "remove", lambda *a: (_ for _ in ()).throw(CheckpointError("busy"))
    )
    assert store.save(2, 1, weights("b")) == store.latest()
    assert "busy" in caplog.text


def test_a_generation_that_ends_while_it_uploads_is_refused_before_its_marker(place, monkeypatch):
    old, new = place.store(run_id="r1"), place.store(run_id="r1")
    old.save(1, 1, weights("a"))
    kind = type(old._storage)
    publish = kind.publish

    def overtaken(self, staging, name, last, check):
        def overtake():
            monkeypatch.setattr(kind, "publish", publish)
            new.save(5, 2, weights("b"))
            check()

        publish(self, staging, name, last, overtake)

    monkeypatch.setattr(kind, "publish", overtaken)
    with pytest.raises(CheckpointError, match="generation 1 is over"):
        old.save(6, 1, weights("c"))
    assert place.entries() == ["ckpt-000000000001-g1", "ckpt-000000000005-g2"]


def test_a_save_goes_on_in_the_background_and_another_waits(place, monkeypatch):
    store = place.store()
    go, told = threading.Event(), []
    kind = type(store._storage)
    publish = kind.publish
    monkeypatch.setattr(kind, "publish", lambda self, *a: (go.wait(30), publish(self, *a))[1])
    first = store.begin_save(1, 1, weights("a"), on_complete=told.append)
    assert not first.done()
    monkeypatch.setattr("tfos.fault.checkpoints.store.SAVE_WAIT_S", 0.05)
    with pytest.raises(CheckpointError, match=r"has not come to its end within 0\.05 s"):
        store.begin_save(2, 1, lambda d: pytest.fail("written"))
    assert told == []
    go.set()
    assert [first.result(10)] == told == store.list()


def test_a_failed_background_save_leaves_nothing_and_the_next_one_goes(place, monkeypatch):
    store = place.store()
    kind = type(store._storage)
    with monkeypatch.context() as patched:
        patched.setattr(kind, "publish", lambda *a: (_ for _ in ()).throw(CheckpointError("no")))
        failed = store.begin_save(1, 1, weights("a"))
        with pytest.raises(CheckpointError, match="no"):
            failed.result(10)
    store.save(2, 1, weights("b"))
    assert place.entries() == ["ckpt-000000000002-g1"]


def run_id(number: int) -> str:
    return f"20260101-0000{number:02d}-abc"


def test_reports_are_kept_beside_checkpoints(place, tmp_path):
    store = place.store()
    path = store.write_report(run_id(0), {"outcome": "done", "note": "é"})
    assert path == f"{store.location}/reports/{run_id(0)}.json"
    assert json.loads(place.read(f"reports/{run_id(0)}.json")) == {"outcome": "done", "note": "é"}
    store.write_report(run_id(0), {"outcome": "failed"})
    assert json.loads(place.read(f"reports/{run_id(0)}.json")) == {"outcome": "failed"}
    store.save(1, 1, weights("a"))
    store.clean()
    store.remove_all()
    assert store.latest() is None
    assert place.entries() == ["reports"]
    assert store.latest_loaded(str(tmp_path)) is None


def test_the_newest_20_reports_stay_and_the_one_just_written(place):
    store = place.store()
    for number in range(2, 25):
        store.write_report(run_id(number), {})
    kept = sorted(store._storage.sizes("reports"))
    assert kept == [f"{run_id(number)}.json" for number in range(5, 25)]
    store.write_report(run_id(1), {})
    kept = sorted(store._storage.sizes("reports"))
    assert kept == [f"{run_id(number)}.json" for number in (1, *range(6, 25))]


def test_a_report_that_cannot_be_written_leaves_the_one_before(place, monkeypatch):
    store = place.store()
    store.write_report("r1", {"a": 1})
    with pytest.raises(TypeError):
        store.write_report("r1", {"a": object()})
    with pytest.raises(ValueError, match="cannot name a report"):
        store.write_report("../r1", {})

    def refuse(*args, **options):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("tfos.fault.checkpoints.storage_local.write_durably", refuse)
    monkeypatch.setattr(type(place.fs), "pipe_file", refuse)
    with pytest.raises(CheckpointError, match="could not be written"):
        store.write_report("r1", {"a": 2})
    assert json.loads(place.read("reports/r1.json")) == {"a": 1}
    assert place.entries() == ["reports"]
