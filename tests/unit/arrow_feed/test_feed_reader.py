import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from tfos import wire
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.segment_index import read_retention
from tfos.arrow_feed.selection import Selection
from tfos.arrow_feed.service import FeedService, ReadingRequest, Transport
from tfos.arrow_feed.spool import SpoolWriter
from tfos.config import FeedConfig
from tfos.errors import FeedError, SchemaMismatchError
from tfos.read_plan import FeedPosition, ReadPlan

ROWS = 1000
TABLE = pa.table(
    {
        "i": pa.array(range(ROWS), pa.int64()),
        "a": pa.array(np.arange(ROWS) / 2, pa.float32()),
        "b": pa.array(np.arange(ROWS) * 3, pa.float32()),
        "s": [f"row {i}" for i in range(ROWS)],
        "v": pa.array([[i, -i] for i in range(ROWS)], pa.list_(pa.float64(), 2)),
        "l": pa.array([list(range(i % 5)) for i in range(ROWS)], pa.list_(pa.int32())),
        "t": [[f"{i}"] * (i % 3) for i in range(ROWS)],
    }
)
SCHEMA = FeedSchema.from_arrow(TABLE.schema)


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    """Return a spool of TABLE, in segments of 37 rows."""
    path = tmp_path_factory.mktemp("feed") / "spool"
    config = FeedConfig(segment_bytes=1)
    with SpoolWriter([Place(path, 1 << 30)], {"train": SCHEMA}, config) as writer:
        for batch in TABLE.to_batches(37):
            writer.write(batch)
    assert len(list(path.rglob("*.segment"))) == -(-ROWS // 37)
    yield path
    writer.remove()


@pytest.fixture
def reader(spool):
    reader = SpoolReader(spool, wait_timeout_s=2)
    yield reader
    reader.close()


def numbers(batches):
    return [b.columns["i"].tolist() for b in batches]


def flat(batches):
    return [i for batch in numbers(batches) for i in batch]


@pytest.mark.parametrize("size", [1, 36, 37, 38, 100, 999, 1000, 5000])
def test_batches_are_cut_exactly_across_segments(reader, size):
    batches = list(reader.batches(ReadPlan(batch_size=size)))
    assert numbers(batches) == [list(range(s, min(s + size, ROWS))) for s in range(0, ROWS, size)]
    assert [b.rows for b in batches] == [len(n) for n in numbers(batches)]
    # The whole feed is there, so the epoch's last batch is known to be that.
    inner = [FeedPosition(0, s) for s in range(size, ROWS, size)]
    assert [b.position for b in batches] == [*inner, FeedPosition(1, 0)]


@pytest.mark.parametrize("shuffle_rows", [0, 90])
def test_every_column_keeps_to_its_row(reader, shuffle_rows):
    rows = 0
    for batch in reader.batches(ReadPlan(batch_size=64, shuffle_rows=shuffle_rows)):
        c = batch.columns
        rows += batch.rows
        i = c["i"]
        np.testing.assert_array_equal(c["a"], (i / 2).astype(np.float32))
        np.testing.assert_array_equal(c["b"], (i * 3).astype(np.float32))
        assert c["s"].tolist() == [f"row {n}".encode() for n in i]
        np.testing.assert_array_equal(c["v"], np.stack([i, -i], axis=1))
        values, splits = c["l"]
        assert [values[p:q].tolist() for p, q in pairwise(splits)] == [
            list(range(n % 5)) for n in i
        ]
        values, splits = c["t"]
        assert [values[p:q].tolist() for p, q in pairwise(splits)] == [
            [str(n).encode()] * (n % 3) for n in i
        ]
    assert rows == ROWS


def test_batches_own_their_memory(reader):
    first, second = list(reader.batches(ReadPlan(batch_size=500)))
    kept = second.columns["a"].copy()
    for column in ("i", "a", "v"):
        first.columns[column][...] = 7
        assert first.columns[column].ctypes.data != second.columns[column].ctypes.data
    np.testing.assert_array_equal(second.columns["a"], kept)
    again = next(reader.batches(ReadPlan(batch_size=500)))
    assert again.columns["i"].tolist() == list(range(500))


def test_epochs_follow_each_other_and_do_not_share_batches(reader):
    batches = list(reader.batches(ReadPlan(batch_size=600, epochs=3)))
    assert [b.rows for b in batches] == [600, 400] * 3
    assert [tuple(b.position) for b in batches] == [
        *((0, 600), (1, 0)),
        *((1, 600), (2, 0)),
        *((2, 600), (3, 0)),
    ]
    assert flat(batches) == list(range(ROWS)) * 3


def test_no_end_of_epochs_goes_on(reader):
    batches = reader.batches(ReadPlan(batch_size=600, epochs=None))
    assert [next(batches).position.epoch for _ in range(9)] == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_remainder_is_dropped_where_asked(reader):
    batches = list(reader.batches(ReadPlan(batch_size=300, epochs=2, drop_remainder=True)))
    assert [b.rows for b in batches] == [300] * 6


def test_a_batch_larger_than_all_rows_ends_rather_than_spins(reader):
    assert list(reader.batches(ReadPlan(batch_size=1001, epochs=None, drop_remainder=True))) == []


@pytest.mark.parametrize("window", [1, 10, 37, 64, 333, 1000, 100_000])
def test_a_shuffle_permutes_within_its_windows(reader, window):
    order = flat(reader.batches(ReadPlan(batch_size=64, shuffle_rows=window)))
    for start in range(0, ROWS, window):
        part = order[start : start + window]
        assert sorted(part) == list(range(start, min(start + window, ROWS)))
    assert (order != list(range(ROWS))) == (window > 1)


def test_a_shuffle_depends_on_seed_and_epoch_alone(spool):
    def read(**plan):
        return flat(SpoolReader(spool).batches(ReadPlan(shuffle_rows=200, **plan)))

    assert read(seed=1, batch_size=64) == read(seed=1, batch_size=100)
    assert read(seed=1) != read(seed=2)
    two = read(seed=1, epochs=2)
    assert two[:ROWS] != two[ROWS:]
    assert sorted(two[ROWS:]) == list(range(ROWS))


@pytest.mark.parametrize("shuffle_rows", [0, 150])
@pytest.mark.parametrize("drop_remainder", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 16])
def test_a_resumed_reading_continues_as_the_whole_one(reader, shuffle_rows, drop_remainder, cut):
    plan = ReadPlan(
        batch_size=128, epochs=2, shuffle_rows=shuffle_rows, drop_remainder=drop_remainder
    )
    whole = list(reader.batches(plan))
    position = whole[cut - 1].position if 0 < cut <= len(whole) else plan.start
    rest = whole[cut:] if cut <= len(whole) else whole
    resumed = list(reader.batches(plan.starting_at(position)))
    assert numbers(resumed) == numbers(rest)
    assert [b.position for b in resumed] == [b.position for b in rest]


def test_a_position_past_the_data_is_refused(reader):
    with pytest.raises(FeedError, match="row 2000: it has 1000 rows"):
        list(reader.batches(ReadPlan(start=FeedPosition(0, 2000))))


def test_only_the_asked_columns_come(reader):
    (batch,) = reader.batches(ReadPlan(batch_size=ROWS, columns=("s", "b")))
    assert set(batch.columns) == {"s", "b"}


@pytest.mark.parametrize("shuffle_rows", [0, 100])
@pytest.mark.parametrize("members", [("a", "b"), ("b", "a"), ("b",)])
def test_stacked_columns_stand_side_by_side(reader, members, shuffle_rows):
    plan = ReadPlan(batch_size=300, stack={"x": members}, shuffle_rows=shuffle_rows)
    for batch in reader.batches(plan):
        i = batch.columns["i"]
        expected = {"a": i / 2, "b": i * 3.0}
        np.testing.assert_array_equal(
            batch.columns["x"], np.stack([expected[m] for m in members], axis=1)
        )
        assert not set(members) & set(batch.columns)
        assert batch.columns["x"].flags.c_contiguous


@pytest.mark.parametrize(
    "plan", [{"columns": ("ii",)}, {"name": "eval"}, {"stack": {"x": ("i", "a")}}]
)
def test_what_is_not_there_is_refused_before_reading(reader, plan):
    with pytest.raises(SchemaMismatchError):
        reader.batches(ReadPlan(**plan))


def test_readings_do_not_disturb_each_other(reader):
    plans = [
        ReadPlan(batch_size=10),
        ReadPlan(batch_size=10, shuffle_rows=50),
        ReadPlan(batch_size=7),
    ]
    alone = [flat(reader.batches(plan)) for plan in plans]
    readings = [reader.batches(plan) for plan in plans]
    found = [[], [], []]
    for _ in range(150):
        for rows, reading in zip(found, readings, strict=True):
            batch = next(reading, None)
            rows += [] if batch is None else batch.columns["i"].tolist()
    assert found == alone


def test_rows_are_known_when_complete(reader):
    assert reader.rows() == ROWS
    assert reader.schema() == SCHEMA
    assert reader.names == ("train",)
    assert list(reader.batches(ReadPlan(columns=("v",))))
    assert reader.list_widths("train") == {"v": 2}


def test_a_request_to_stop_ends_the_reading(spool):
    stop = threading.Event()
    reader = SpoolReader(spool, should_stop=stop.is_set)
    batches = reader.batches(ReadPlan(batch_size=10, epochs=None))
    next(batches)
    stop.set()
    assert list(batches) == []


@pytest.fixture
def unfinished(tmp_path):
    """Return a spool writer that has published one row and goes on."""
    schema = FeedSchema.from_arrow(pa.schema([("i", pa.int64())]))
    config = FeedConfig(segment_bytes=1)
    writer = SpoolWriter([Place(tmp_path / "spool", 1 << 20)], {"train": schema}, config)
    writer.write(pa.record_batch({"i": [0]}))
    yield writer
    writer.remove()


def test_a_wait_without_rows_says_what_it_waited_for(unfinished):
    reader = SpoolReader(unfinished.directory, wait_timeout_s=0.01)
    with pytest.raises(FeedError, match=r"no rows of 'train' from Spark for 0\.01 s after 1 rows"):
        list(reader.batches(ReadPlan(batch_size=2)))
    assert reader.rows() is None
    assert reader.waited_s > 0


def test_closing_wakes_a_waiting_reader(unfinished):
    reader = SpoolReader(unfinished.directory, wait_timeout_s=60)
    found = []
    thread = threading.Thread(target=lambda: found.extend(reader.batches(ReadPlan(batch_size=2))))
    thread.start()
    while reader.waited_s == 0 and not found and thread.is_alive():
        reader.close()
        thread.join(1)
    assert not thread.is_alive()
    assert found == []


def test_a_missing_spool_is_an_error_in_time(tmp_path):
    with pytest.raises(FeedError, match="no spool at"):
        SpoolReader(tmp_path, wait_timeout_s=0.01)


@pytest.mark.parametrize(("epochs", "expected"), [(1, False), (2, True)])
def test_the_writer_is_told_what_is_still_needed(reader, spool, epochs, expected):
    batches = reader.batches(ReadPlan(batch_size=100, epochs=epochs))
    next(batches)
    retention = read_retention(spool / "feed-train")
    assert retention.keeps is expected
    assert retention.released == (2 if epochs == 1 else 0)


def test_the_slowest_reading_decides_what_is_needed(reader, spool):
    slow = reader.batches(ReadPlan(batch_size=100))
    next(slow)
    fast = reader.batches(ReadPlan(batch_size=500))
    next(fast)
    assert read_retention(spool / "feed-train").released == 2
    slow.close()
    next(fast)
    assert read_retention(spool / "feed-train").released > 20


def request(plan, endless=False, ahead=0, starts=None, schema=SCHEMA):
    asked = ReadingRequest(plan, schema, endless, ahead, starts or {})
    return np.array(wire.to_text(asked).encode(), object)


def test_the_service_delivers_what_its_transport_announces(reader):
    service = FeedService({"train": reader}, 3)
    plan = ReadPlan(batch_size=600, stack={"x": ("a", "b")})
    expected = Transport(Selection.of(SCHEMA, plan)).arrays
    number = service.open(request(plan, endless=True))
    for rows in (600, 400, 0, 0):
        arrays = service.next(number)
        assert len(arrays) == len(expected)
        for array, (dtype, shape) in zip(arrays, expected, strict=True):
            assert array.dtype == (object if dtype == "string" else dtype)
            assert len(shape) == array.ndim
            assert all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        assert arrays[-1].tolist() == [3, *((0, 600) if rows == 600 else (1, 0)), rows]
    assert service.open_readings == 1
    service.close(number)
    service.close(number)
    assert service.open_readings == 0
    with pytest.raises(FeedError, match="not open"):
        service.next(number)


def test_the_service_ends_by_stop_iteration(reader):
    service = FeedService({"train": reader}, 0)
    number = service.open(request(ReadPlan(batch_size=ROWS)))
    service.next(number)
    with pytest.raises(StopIteration):
        service.next(number)


def test_the_service_refuses_another_schema(reader):
    service = FeedService({"train": reader}, 0)
    other = FeedSchema.from_arrow(pa.schema([("i", pa.int32())]))
    with pytest.raises(SchemaMismatchError, match="schema"):
        service.open(request(ReadPlan(), schema=other))


def taken(service, number):
    """Take a batch; return the rows before and after it, counted over epochs."""
    status = service.next(number)[-1].tolist()
    after = status[1] * ROWS + status[2]
    return after - status[3], after


def rows_used(service):
    used = service.used("train")
    return None if used is None else used.epoch * ROWS + used.row


@pytest.mark.parametrize("ahead", [0, 1, 4, 16])
def test_what_is_taken_for_used_trails_what_was_handed_out(reader, ahead):
    """Whichever `ahead` batches are still on their way, no row of them is taken for used."""
    service = FeedService({"train": reader}, 0)
    number = service.open(request(ReadPlan(batch_size=130, epochs=3), ahead=ahead))
    assert service.used("train") is None
    ends = [0]
    while ends[-1] < 3 * ROWS:
        ends.append(taken(service, number)[1])
        assert rows_used(service) == ends[max(0, len(ends) - 1 - ahead)]
    assert len(ends) == 3 * 8 + 1


def test_what_is_used_is_told_of_each_dataset_by_itself(reader, spool):
    service = FeedService({"train": reader, "eval": SpoolReader(spool)}, 0)
    number = service.open(request(ReadPlan(batch_size=10)))
    service.next(number)
    assert service.used("train") == (0, 10)
    assert service.used("eval") is None


@pytest.mark.parametrize("shuffle_rows", [0, 150])
@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("batches", [0, 1, 5, 8, 9, 15])
def test_a_replacing_process_misses_no_row_and_repeats_few(reader, shuffle_rows, ahead, batches):
    plan = ReadPlan(batch_size=128, epochs=2, shuffle_rows=shuffle_rows)
    first = FeedService({"train": reader}, 0)
    number = first.open(request(plan, endless=True, ahead=ahead))
    handed = [first.next(number)[0] for _ in range(batches)]
    # Of those handed out the last `ahead` die with the process, the one in use among them.
    used = flat_of(handed[: max(0, batches - ahead)])
    second = FeedService({"train": reader}, 0, first.used("train"))
    number = second.open(request(plan, endless=True, ahead=ahead))
    again = []
    while len(arrays := second.next(number)[0][0]):
        again.append(arrays[None])
    assert used + flat_of(again) == flat(reader.batches(plan))


def flat_of(arrays):
    """Return the first column's rows of batches."""
    return [i for batch in arrays for i in batch[0].tolist()]


EARLY, LATE = FeedPosition(0, 600), FeedPosition(1, 200)


@pytest.mark.parametrize(
    ("start", "told", "continue_at", "begins"),
    [
        (EARLY, None, None, EARLY),
        (EARLY, None, LATE, LATE),
        (LATE, None, EARLY, LATE),
        (FeedPosition(), None, EARLY, EARLY),
        # The checkpoint's position of this very feed stands for the plan's.
        (LATE, EARLY, None, EARLY),
        (LATE, EARLY, FeedPosition(0, 700), FeedPosition(0, 700)),
        (FeedPosition(), LATE, EARLY, LATE),
    ],
)
def test_an_endless_reading_starts_at_the_later_of_what_it_is_told_and_what_was_used(
    reader, start, told, continue_at, begins
):
    service = FeedService({"train": reader}, 2, continue_at)
    plan = ReadPlan(batch_size=50, epochs=2, start=start)
    starts = {1: FeedPosition(1, 900)} | ({} if told is None else {2: told})
    number = service.open(request(plan, endless=True, starts=starts, ahead=3))
    assert taken(service, number)[0] == begins.epoch * ROWS + begins.row
    assert service.used("train") == begins


def test_a_reading_with_an_end_starts_where_it_is_told(reader):
    service = FeedService({"train": reader}, 0, LATE)
    number = service.open(request(ReadPlan(batch_size=50), ahead=3))
    assert taken(service, number)[0] == 0
