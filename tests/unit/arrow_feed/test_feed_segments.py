import errno
import os
import stat

import numpy as np
import pyarrow as pa
import pytest

from tfos.arrow_feed import segments
from tfos.arrow_feed.blocks import Ragged
from tfos.arrow_feed.convert import BatchConverter
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.segment_index import (
    IndexTail,
    IndexWriter,
    Retention,
    SegmentEntry,
    read_abort,
    read_retention,
    write_abort,
    write_retention,
)
from tfos.arrow_feed.segments import map_segment, write_segment
from tfos.errors import FeedError, NullValueError

BATCHES = [
    pa.record_batch(
        {
            "i": pa.array(range(start, start + rows), pa.int64()),
            "f": pa.array(np.arange(start, start + rows), pa.float32()),
            "s": [f"text {i}" * (i % 3) for i in range(start, start + rows)],
            "j": pa.array(range(rows), pa.int64()),
            "v": pa.array([[i, i + 1] for i in range(rows)], pa.list_(pa.float64(), 2)),
            "l": [list(range(i % 4)) for i in range(start, start + rows)],
            "t": [["a"] * (i % 2) + ["bc"] for i in range(start, start + rows)],
        }
    )
    for start, rows in ((0, 5), (5, 1), (6, 7))
]
SCHEMA = FeedSchema.from_arrow(BATCHES[0].schema)


def rows_of(column):
    if isinstance(column, Ragged):
        inner = rows_of(column.child)
        bounds = zip(column.splits[:-1], column.splits[1:], strict=True)
        return [inner[a:b] for a, b in bounds]
    return column.tolist()


def write(path, batches=BATCHES):
    convert = BatchConverter(SCHEMA, "error")
    return write_segment(path, SCHEMA, [convert(batch) for batch in batches])


def test_what_is_written_is_mapped_back(tmp_path):
    size = write(tmp_path / "segment")
    assert os.stat(tmp_path / "segment").st_size == size
    assert stat.S_IMODE(os.stat(tmp_path / "segment").st_mode) == 0o600
    block = map_segment(tmp_path / "segment", SCHEMA)
    whole = pa.Table.from_batches(BATCHES)
    assert block.rows == 13
    found = {
        n: a
        for (_, ns), g in zip(SCHEMA.groups, block.groups, strict=True)
        for n, a in zip(ns, g, strict=True)
    }
    found |= {c.name: a for c, a in zip(SCHEMA.singles, block.singles, strict=True)}
    for name in ("i", "f", "j", "v", "l"):
        assert rows_of(found[name]) == whole[name].to_pylist(), name
    texts = [bytes(row).decode() for row in rows_of(found["s"])]
    assert texts == whole["s"].to_pylist()
    assert [[bytes(t).decode() for t in row] for row in rows_of(found["t"])] == whole[
        "t"
    ].to_pylist()


def test_columns_of_a_group_lie_at_one_stride(tmp_path):
    write(tmp_path / "segment")
    block = map_segment(tmp_path / "segment", SCHEMA)
    assert block.groups[0].shape == (2, 13)
    assert block.groups[0].strides == (128, 8)
    assert not block.groups[0].flags.writeable


def test_more_pieces_than_one_system_call_takes(tmp_path):
    write(tmp_path / "segment", BATCHES * 200)
    block = map_segment(tmp_path / "segment", SCHEMA)
    assert block.groups[0][0].tolist() == [*range(13)] * 200


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real(fd, [pieces[0][:7]]))
    write(tmp_path / "segment")
    monkeypatch.undo()
    write(tmp_path / "whole")
    assert (tmp_path / "segment").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def full(fd, pieces):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(segments.os, "writev", full)
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "segment")
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(tmp_path):
    (tmp_path / "segment").write_bytes(b"not a segment\n")
    with pytest.raises(FeedError, match="not a segment"):
        map_segment(tmp_path / "segment", SCHEMA)


def test_index_gives_each_entry_once_and_ignores_a_torn_tail(tmp_path):
    writer, entries = IndexWriter(tmp_path), [SegmentEntry(i, i % 2, 10, 640) for i in range(3000)]
    tail = IndexTail(tmp_path)
    assert tail.new_entries() == []
    for entry in entries[:2000]:
        writer.publish(entry)
    assert tail.new_entries() == entries[:2000]
    whole = (tmp_path / "index").read_bytes()
    writer.publish(entries[2000])
    torn = (tmp_path / "index").read_bytes()[: len(whole) + 31]
    (tmp_path / "index").write_bytes(torn)
    assert tail.new_entries() == []
    (tmp_path / "index").write_bytes(whole)
    for entry in entries[2000:]:
        writer.publish(entry)
    writer.end()
    assert tail.new_entries() == entries[2000:]
    assert tail.ended


def test_a_damaged_index_is_refused(tmp_path):
    IndexWriter(tmp_path).close()
    (tmp_path / "index").write_bytes(b"x" * 32)
    with pytest.raises(FeedError, match="damaged"):
        IndexTail(tmp_path).new_entries()


def test_a_closed_tail_gives_nothing(tmp_path):
    IndexWriter(tmp_path).publish(SegmentEntry(0, 0, 1, 1))
    tail = IndexTail(tmp_path)
    tail.close()
    tail.close()
    assert tail.new_entries() == []


def test_retention_travels(tmp_path):
    assert read_retention(tmp_path) is None
    write_retention(tmp_path, Retention(3, True))
    write_retention(tmp_path, Retention(7, False))
    assert read_retention(tmp_path) == Retention(7, False)


def test_abort_keeps_the_type_and_fields_of_tfos_errors(tmp_path):
    assert read_abort(tmp_path) is None
    write_abort(tmp_path, NullValueError("3 nulls", column="c", rows=3))
    error = read_abort(tmp_path)
    assert isinstance(error, NullValueError)
    assert (str(error), error.column, error.rows) == ("3 nulls", "c", 3)


def test_abort_by_another_error_says_which(tmp_path):
    write_abort(tmp_path, ZeroDivisionError("division by zero"))
    assert type(read_abort(tmp_path)) is FeedError
    assert "ZeroDivisionError: division by zero" in str(read_abort(tmp_path))
