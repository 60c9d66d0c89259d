import errno
import stat
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tfos.arrow_feed import segment_index
from tfos.arrow_feed import spool as spool_module
from tfos.arrow_feed.places import Place, choose_places, host_directory
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.segment_index import Retention, SegmentEntry, write_retention
from tfos.arrow_feed.spool import SpoolWriter
from tfos.config import FeedConfig
from tfos.errors import FeedError, NullValueError, SchemaMismatchError, SpoolFullError
from tfos.read_plan import ReadPlan

SCHEMA = FeedSchema.from_arrow(pa.schema([("x", pa.int64())]))
KB = 1 << 10


def batch(start, rows=1000):
    return pa.record_batch({"x": pa.array(np.arange(start, start + rows))})


def fill(spool):
    """Write more than any spool of these tests holds."""
    return [spool.write(batch(start)) for start in range(0, 20_000, 1000)]


@pytest.fixture
def new_spool(tmp_path):
    """Make spools; each is removed at the end, and its thread with it."""
    made = []

    def make(*limits, names=("train",), cancelled=lambda: False, **config):
        limits = limits or (1 << 20,)
        places = [Place(tmp_path / f"place{i}", limit) for i, limit in enumerate(limits)]
        feed = FeedConfig(**{"segment_bytes": 8000, **config})
        made.append(SpoolWriter(places, dict.fromkeys(names, SCHEMA), feed, cancelled=cancelled))
        return made[-1]

    yield make
    for writer in made:
        writer.remove()
    assert not [t for t in threading.enumerate() if t.name == "spool-flush"]


def read(directory, **plan):
    reader = SpoolReader(directory, wait_timeout_s=5)
    return [x for b in reader.batches(ReadPlan(**plan)) for x in b.columns["x"].tolist()]


def files(directory):
    return sorted(directory.rglob("*.segment"))


def test_rows_come_back_in_order_from_private_files(new_spool):
    with new_spool() as spool:
        for start in range(0, 5000, 1000):
            assert spool.write(batch(start))
    assert spool.rows == {"train": 5000}
    assert read(spool.directory) == list(range(5000))
    for path in [spool.directory, *spool.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_first_segment_is_published_before_the_target_size(new_spool):
    spool = new_spool(64 << 20, segment_bytes=16 << 20)
    for start in range(0, 40_000, 1000):
        spool.write(batch(start))
    assert SpoolReader(spool.directory).rows() is None
    assert files(spool.directory)  # 320 KB written, segments of 16 MB asked for


def test_datasets_lie_side_by_side_whatever_their_names(new_spool):
    names = ("train", "..", "a/b")
    with new_spool(names=names) as spool:
        for i, name in enumerate(names):
            spool.write(batch(i, 1), name)
    assert [read(spool.directory, name=name) for name in names] == [[0], [1], [2]]
    with pytest.raises(SchemaMismatchError, match="'test'"):
        read(spool.directory, name="test")


def test_a_spool_without_rows_is_complete_and_empty(new_spool):
    with new_spool() as spool:
        pass
    reader = SpoolReader(spool.directory)
    assert reader.rows() == 0
    assert list(reader.batches(ReadPlan(epochs=None))) == []


def test_memory_fills_before_disk(new_spool):
    with new_spool(20 * KB, 1 << 20) as spool:
        for start in range(0, 8000, 1000):
            spool.write(batch(start))
    memory, disk = spool.directory, spool.directory.parent / "place1"
    assert len(files(memory)) == 2
    assert len(files(disk)) == 6
    assert read(spool.directory) == list(range(8000))


def test_a_reader_that_keeps_everything_is_told_the_limits(new_spool):
    spool = new_spool(64 * KB)
    write_retention(spool.directory / "feed-train", Retention(0, True))
    with pytest.raises(SpoolFullError, match=r"feed\.memory_bytes or feed\.disk_bytes") as caught:
        fill(spool)
    assert caught.value.limit_bytes == 64 * KB
    assert str(spool.directory) in str(caught.value)


def test_a_batch_larger_than_the_spool_is_refused_at_once(new_spool):
    with pytest.raises(SpoolFullError, match=r"feed\.batch_rows"):
        new_spool(4 * KB).write(batch(0))


def test_released_segments_make_room(new_spool):
    spool = new_spool(64 * KB)
    for start in range(0, 6000, 1000):
        spool.write(batch(start))
    assert len(files(spool.directory)) == 6
    write_retention(spool.directory / "feed-train", Retention(4, False))
    for start in range(6000, 9000, 1000):
        spool.write(batch(start))
    names = [path.name for path in files(spool.directory)]
    assert "00000004.segment" in names
    assert "00000000.segment" not in names
    assert sum(path.stat().st_size for path in files(spool.directory)) <= 64 * KB
    with pytest.raises(FeedError, match=r"removed to make room.*epochs=N"):
        read(spool.directory)


def test_a_full_spool_waits_for_its_reader_and_loses_nothing(new_spool):
    full = threading.Event()

    def polled_while_full():
        full.set()
        return False

    spool = new_spool(64 * KB, wait_timeout_s=20, cancelled=polled_while_full)

    def write():
        with spool:
            for start in range(0, 200_000, 1000):
                spool.write(batch(start))

    writer = threading.Thread(target=write)
    writer.start()
    assert full.wait(10)  # a reader from the start might never let it fill
    assert read(spool.directory) == list(range(200_000))
    writer.join(10)
    assert not writer.is_alive()
    assert spool.waited_s > 0


def test_no_reader_at_all_is_an_error_in_time(new_spool):
    spool = new_spool(64 * KB, wait_timeout_s=0.02)
    with pytest.raises(SpoolFullError, match=r"no reader took any row.*feed\.wait_timeout_s"):
        fill(spool)


def test_a_cancelled_writer_leaves_at_once(new_spool):
    spool = new_spool(64 * KB, cancelled=lambda: True)
    assert fill(spool)[-1] is False
    spool.finish()
    assert SpoolReader(spool.directory).rows() is None


def test_full_shared_memory_spills_to_disk(new_spool, monkeypatch):
    spool = new_spool(1 << 20, 1 << 20)
    real = spool_module.write_segment

    def small(path, schema, parts):
        if "place0" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, schema, parts)

    monkeypatch.setattr(spool_module, "write_segment", small)
    with spool:
        for start in range(0, 5000, 1000):
            spool.write(batch(start))
    assert read(spool.directory) == list(range(5000))


def test_a_full_disk_names_the_directory_and_the_setting(new_spool, monkeypatch):
    spool = new_spool(1 << 20)

    def full(path, schema, parts):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool_module, "write_segment", full)
    with pytest.raises(SpoolFullError, match=r"feed\.spool_dir") as caught:
        fill(spool)
    assert str(spool.directory) in str(caught.value)


def test_a_disk_full_to_the_last_byte_keeps_no_error_and_no_file(new_spool, monkeypatch, caplog):
    spool = new_spool(1 << 20)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool_module, "write_segment", full)
    # Why the feed ends cannot be written either: the error itself is what counts.
    monkeypatch.setattr(segment_index, "write_document", full)
    with pytest.raises(SpoolFullError), spool:
        fill(spool)
    assert "readers do not hear why the feed of train ends" in caplog.text
    spool.remove()
    assert not spool.directory.exists()


def test_rows_of_a_slow_source_do_not_wait_for_their_segment(new_spool):
    spool = new_spool()
    spool.write(batch(0, 10))
    reader = SpoolReader(spool.directory, wait_timeout_s=5)
    rows = next(reader.batches(ReadPlan(batch_size=10)))
    assert rows.columns["x"].tolist() == list(range(10))


def test_an_abort_reaches_the_reader_after_the_rows_before_it(new_spool):
    spool = new_spool()
    spool.write(batch(0))
    nulls = pa.record_batch({"x": pa.array([None], pa.int64())})
    with pytest.raises(NullValueError), spool:
        spool.write(nulls)
    batches = SpoolReader(spool.directory).batches(ReadPlan(batch_size=1000))
    assert next(batches).rows == 1000
    with pytest.raises(NullValueError, match="'x'"):
        next(batches)


def test_a_closed_spool_takes_no_rows(new_spool):
    spool = new_spool()
    spool.finish()
    spool.finish()
    with pytest.raises(FeedError, match="closed"):
        spool.write(batch(0))


def test_an_existing_spool_is_not_taken_over(new_spool):
    new_spool()
    with pytest.raises(FileExistsError):
        new_spool()


def test_a_removed_spool_leaves_nothing_and_may_be_removed_again(new_spool):
    spool = new_spool(1 << 20, 1 << 20)
    spool.write(batch(0))
    spool.remove()
    spool.remove()
    assert not list(spool.directory.parent.iterdir())


def test_segment_names_sort_as_their_numbers():
    names = [SegmentEntry(n, 0, 0, 0).file_name for n in (2, 10, 100)]
    assert names == sorted(names)


def test_places_are_shared_memory_then_sparks_disk(tmp_path):
    config = FeedConfig(memory_bytes="1m", disk_bytes="2m")
    environ = {"SPARK_LOCAL_DIRS": "/spark/a,/spark/b"}
    memory, disk = choose_places(config, "s", environ=environ, shared_memory=tmp_path)
    assert (memory.path, memory.limit_bytes, memory.is_memory) == (tmp_path / "s", 1 << 20, True)
    assert (str(disk.path), disk.limit_bytes, disk.is_memory) == ("/spark/a/s", 2 << 20, False)


def test_on_yarn_files_lie_in_the_containers_directory(tmp_path):
    container = {"CONTAINER_ID": "container_1", "PWD": "/yarn/a/container_1"}
    environ = {"SPARK_LOCAL_DIRS": "/spark", **container}
    places = choose_places(FeedConfig(), "s", environ=environ, shared_memory=tmp_path)
    assert str(places[-1].path) == "/yarn/a/container_1/s"
    assert str(host_directory("h", environ=environ)) == "/yarn/a/container_1/h"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PWD": "/"},
        {"CONTAINER_ID": "container_1", "PWD": "/home/me"},
        {"CONTAINER_ID": "container_1", "PWD": "/yarn/container_1", "TMPDIR": "/big"},
    ],
)
def test_elsewhere_a_hosts_directory_is_a_temporary_one(environ):
    assert host_directory("h", environ=environ) == Path(tempfile.gettempdir(), "h")


def test_a_named_directory_takes_all(tmp_path):
    config = FeedConfig(spool_dir=str(tmp_path), memory_bytes="1m", disk_bytes="2m")
    (place,) = choose_places(config, "s")
    assert (place.path, place.limit_bytes) == (tmp_path / "s", 3 << 20)


def test_without_shared_memory_the_disk_takes_all(tmp_path):
    config = FeedConfig(memory_bytes="1m", disk_bytes="2m")
    (place,) = choose_places(config, "s", environ={}, shared_memory=tmp_path / "none")
    assert place.limit_bytes == 3 << 20
    assert not place.is_memory
