from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tfos.errors import CheckpointError, CheckpointFencedError
from tfos.fault.checkpoints.storage_local import LocalStorage
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.launcher.handover.messages import Artifact, FromProcess, to_json
from tfos.launcher.training import checkpoints as stored_checkpoints
from tfos.launcher.training.checkpoints import StoredCheckpoints
from tfos.read_plan import FeedPosition
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey
from tfos.training_parts import ProcessFacts


class Link:
    def __init__(self) -> None:
        self.told: list[Artifact] = []
        self.threads: set[str] = set()
        self.notices: list[str] = []

    def notify(self, text: str, *, warning: bool = False) -> None:
        self.notices.append(text)

    def send(self, message: FromProcess) -> None:
        json.dumps(to_json(message))
        if isinstance(message, Artifact):
            self.threads.add(threading.current_thread().name)
            self.told.append(message)


def spec(**facts):
    chief = TaskKey(Role.CHIEF, 0)
    cluster = ClusterSpec({chief: Endpoint("127.0.0.1", 1)})
    known = {"row_orders": (7,), **facts}
    return SimpleNamespace(facts=ProcessFacts("fm", "r1", 1, chief, cluster, (chief,), **known))


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def stored(tmp_path, link):
    store = CheckpointStore(str(tmp_path / "store"), "fm", run_id="r1")
    return StoredCheckpoints(store, spec(), link)


@pytest.fixture
def upload(monkeypatch):
    """Hold every save between its `write` and its commit until `go` is set."""
    held = SimpleNamespace(began=threading.Event(), go=threading.Event(), error=None)
    publish = LocalStorage.publish

    def hold(self, *args):
        held.began.set()
        assert held.go.wait(30)
        if held.error is not None:
            raise held.error
        publish(self, *args)

    monkeypatch.setattr(LocalStorage, "publish", hold)
    yield held
    held.go.set()


def write(directory: str) -> None:
    Path(directory, "weights").write_bytes(b"w")


def save_and_fail(stored: StoredCheckpoints, error: BaseException) -> None:
    with stored:
        stored.save(1, write)
        raise error


def test_save_returns_before_the_checkpoint_is_complete_and_flush_after(stored, upload, link):
    stored.save(7, write)
    assert upload.began.wait(10)
    assert stored._store.latest() is None
    assert link.told == []
    upload.go.set()
    stored.flush()
    path = stored._store.latest().path
    assert link.told == [Artifact("checkpoint", path)]
    assert link.threads == {"tfos-checkpoint-save"}
    stored.flush()


def test_a_second_save_waits_for_the_first(stored, upload):
    stored.save(1, write)
    assert upload.began.wait(10)
    wrote = threading.Event()
    second = threading.Thread(target=stored.save, args=(2, lambda d: (write(d), wrote.set())))
    second.start()
    assert not wrote.wait(0.2)
    upload.go.set()
    second.join(10)
    stored.flush()
    assert [info.step for info in stored._store.list()] == [2, 1]


def full(directory: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_two_failures_in_a_row_are_excused_and_the_third_is_not(stored, link):
    assert stored.save(1, write, excused=True)
    for step in (2, 3):
        assert not stored.save(step, full, excused=True)
    (told,) = link.notices  # the cause is still the same
    assert "checkpoint of step 2 was not written: no space is left for " in told
    assert "training goes on without this checkpoint" in told
    assert "the last complete checkpoint is of step 1, 20" in told
    assert stored.save(4, write, excused=True)
    stored.flush()
    assert link.notices[1:] == ["checkpoints are written again: step 4 is complete"]
    # One that became complete ends the row.
    for _ in range(2):
        assert not stored.save(4, full, excused=True)
    with pytest.raises(CheckpointError, match=r"no space is left.* complete checkpoint is of st"):
        stored.save(5, full, excused=True)


def denied(directory: str) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)


def test_another_cause_is_told_as_well(stored, link):
    for fails in (full, denied):
        assert not stored.save(2, fails, excused=True)
    assert ["no space" in each for each in link.notices] == [True, False]
    assert all(each.endswith("no checkpoint is complete yet") for each in link.notices)


def test_failures_in_the_background_count_as_well(stored, upload, link):
    upload.error = CheckpointError("the bucket is gone")
    upload.go.set()
    # Each begins well; that the one before it failed is heard first.
    assert all(stored.save(step, write, excused=True) for step in (1, 2, 3))
    assert "".join(link.notices).count("the bucket is gone; training goes on") == 1
    with pytest.raises(CheckpointError, match="the bucket is gone"):
        stored.save(4, write, excused=True)


def test_the_last_save_is_tried_whatever_became_of_an_excused_one(stored, upload, link):
    upload.error = CheckpointError("the bucket is gone")
    upload.go.set()
    assert stored.save(1, write, excused=True)
    assert not stored.flush(excused=True)
    assert stored.save(2, write, excused=True)
    assert stored._saving.exception(10) is upload.error
    upload.error = None
    assert stored.save(3, write)
    assert stored.flush()
    assert [info.step for info in stored._store.list()] == [3]
    assert "".join(link.notices).count("the bucket is gone; training goes on") == 1


def test_a_save_that_hangs_is_waited_for_once(stored, upload, monkeypatch):
    monkeypatch.setattr(stored_checkpoints, "SAVE_WAIT_S", 0.05)
    assert stored.save(1, write, excused=True)
    assert not stored.save(2, lambda d: pytest.fail("written"), excused=True)
    upload.go.set()
    stored._saving.result(10)
    assert stored.save(3, write, excused=True)


def test_a_process_of_an_earlier_generation_is_not_excused(stored, tmp_path):
    later = CheckpointStore(str(tmp_path / "store"), "fm", run_id="r1")
    later.save(1, 2, write)
    assert stored.save(2, write, excused=True)
    with pytest.raises(CheckpointFencedError, match="generation 1 is over"):
        stored.flush(excused=True)


@pytest.mark.parametrize("raiser", ["flush", "save", "latest", "restore"])
def test_a_failure_is_told_once_by_what_is_called_next(stored, upload, link, raiser):
    upload.error = CheckpointError("the bucket is gone")
    upload.go.set()
    stored.save(1, write)
    call = {
        "flush": stored.flush,
        "latest": stored.latest,
        "restore": lambda: stored.restore(lambda path: None),
        "save": lambda: stored.save(2, lambda d: pytest.fail("written")),
    }[raiser]
    with pytest.raises(CheckpointError, match="the bucket is gone"):
        call()
    assert link.told == []
    upload.error = None
    stored.save(3, write)
    stored.flush()
    assert stored.latest().step == 3


def test_a_save_that_does_not_end_is_told_in_time(stored, upload, monkeypatch):
    monkeypatch.setattr("tfos.launcher.training.checkpoints.SAVE_WAIT_S", 0.05)
    stored.save(1, write)
    for again in (stored.flush, lambda: stored.save(2, write), stored.flush):
        with pytest.raises(CheckpointError, match=r"of chief-0 was not complete after 0\.05 s"):
            again()
    upload.go.set()
    while stored._saving is not None and not stored._saving.done():
        time.sleep(0.01)
    assert stored._store.latest().step == 1


def test_what_write_raises_comes_at_once_and_another_save_goes(stored):
    with pytest.raises(KeyError):
        stored.save(1, lambda d: {}["variable"])
    stored.save(2, write)
    stored.flush()
    assert [info.step for info in stored._store.list()] == [2]


def test_leaving_the_block_waits_and_raises(stored, upload):
    threading.Timer(0.1, upload.go.set).start()
    with stored:
        stored.save(1, write)
    assert stored._store.latest().step == 1
    upload.error = CheckpointError("full")
    with pytest.raises(CheckpointError, match="full"), stored:
        stored.save(2, write)


def test_an_error_of_the_block_still_lets_the_save_end_and_is_not_hidden(stored, upload, caplog):
    threading.Timer(0.1, upload.go.set).start()
    with pytest.raises(KeyError):
        save_and_fail(stored, KeyError("bug"))
    assert stored._store.latest().step == 1
    upload.error = CheckpointError("full")
    with pytest.raises(KeyError):
        save_and_fail(stored, KeyError("bug"))
    assert "the last checkpoint did not become complete: full" in caplog.text


def test_one_that_was_told_to_stop_does_not_wait(stored, upload):
    class Stopped(BaseException):
        pass

    begin = time.monotonic()
    with pytest.raises(Stopped):
        save_and_fail(stored, Stopped())
    assert time.monotonic() - begin < 5
    assert stored._store.latest() is None


def test_a_run_without_checkpoints_keeps_none(link):
    with StoredCheckpoints(None, spec(), link) as none:
        none.save(1, lambda d: pytest.fail("written"))
        none.flush()
        assert none.latest() is None
        assert none.restore(lambda path: None) is None


def test_what_is_saved_is_restored_and_told(stored, link):
    stored.save(5, write)
    found = []
    info = stored.restore(lambda path: found.append(Path(path, "weights").read_bytes()))
    assert (info.step, found) == (5, [b"w"])
    assert [(each.name, each.path) for each in link.told] == [
        ("checkpoint", info.path),
        ("resumed_from", info.path),
        ("checkpoint", info.path),
    ]


@pytest.mark.parametrize(
    ("orders", "given", "kept"),
    [
        ((7,), None, {0: FeedPosition(1, 30)}),
        ((7,), {0: FeedPosition(2, 0)}, {0: FeedPosition(2, 0)}),
        # Of several that are fed, this one does not know how far the others are.
        ((7, 8), None, {}),
    ],
)
def test_where_the_rows_go_on_is_kept_unless_the_writer_says(tmp_path, link, orders, given, kept):
    store = CheckpointStore(str(tmp_path / "store"), "fm", run_id="r1")
    used = FeedPosition(1, 30)
    facts = spec(row_orders=orders)
    with StoredCheckpoints(store, facts, link, lambda: (used, True)) as stored:
        stored.save(1, write, positions=given, metadata={"more": 1})
        found = stored.latest()
    assert found.positions == kept
    assert facts.facts.continued_positions(found) == kept
    assert found.metadata["more"] == 1


def test_a_warm_start_that_nothing_used_is_warned_of(tmp_path, link, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore(str(tmp_path / "store"), "fm", run_id="r1")
    source = store.save(1, 1, lambda d: Path(d, "state.index").write_bytes(b"i")).path
    with StoredCheckpoints(None, spec(warm_start=source), link) as stored:
        stored.warn_of_unused()
        assert [each.startswith(f"--warm-start {source} was not") for each in link.notices] == [
            True
        ]
        prefixes: list[str] = []
        stored.read_from(source, prefixes.append)
        assert Path(f"{prefixes[0]}.index").read_bytes() == b"i"
        stored.warn_of_unused()
    assert len(link.notices) == 1


def test_what_was_downloaded_stays_until_the_end(tmp_path, link, monkeypatch):
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.chdir(room)
    url = f"memory://{tmp_path.name}"
    store = CheckpointStore(url, "fm", run_id="r1")
    with StoredCheckpoints(store, spec(), link) as stored:
        assert stored.restore(lambda path: None) is None
        assert list(room.iterdir()) == []
        stored.save(1, write)
        paths: list[str] = []
        assert stored.restore(paths.append) is not None
        # TensorFlow reads variables that are made later only then.
        assert Path(paths[0], "weights").read_bytes() == b"w"
    assert list(room.iterdir()) == []
