"""Dealing a DataFrame to the ranks of a barrier stage: on a real cluster of executors."""

from __future__ import annotations

import os
from itertools import chain

import pytest
from support.spark_session import spark_session

from tfos.arrow_feed.frame import prepare_frame, tag_frames
from tfos.arrow_feed.gang import deal_to_gang, read_shuffled, unpack_batches
from tfos.arrow_feed.tags import TAG_COLUMN
from tfos.errors import EmptyDataError

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("default")]

SIZES = (0, 1, 999, 50_000)
"""Rows of each partition."""


@pytest.fixture(scope="module")
def spark():
    properties = {
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    }
    with spark_session(__name__, "local-cluster[2,2,1024]", properties) as session:
        yield session


def take(packed):
    """Return, as a rank's role host sees them, its rows' columns `id` and, if any, the tag."""
    import pyarrow as pa
    from pyspark import BarrierTaskContext

    rank = BarrierTaskContext.get().partitionId()
    for batch in [None, *unpack_batches(packed)]:
        ids = [] if batch is None else batch.column("id").to_pylist()
        tagged = batch is not None and TAG_COLUMN in batch.schema.names
        tags = batch.column(TAG_COLUMN).to_pylist() if tagged else [0] * len(ids)
        most = 0 if batch is None else batch.num_rows
        numbers = pa.list_(pa.int64())
        columns = [pa.array([rank]), pa.array([ids], numbers), pa.array([tags], numbers)]
        yield pa.record_batch([*columns, pa.array([most])], names=["rank", "ids", "tags", "most"])


def ranks_of(frame):
    """Run the barrier stage; return each rank's (tag, id) in order, and its largest batch."""
    found: dict[int, list[tuple[int, int]]] = {}
    most: dict[int, int] = {}
    frame = read_shuffled(frame)
    schema = "rank long, ids array<long>, tags array<long>, most long"
    for row in frame.mapInArrow(take, schema, barrier=True).collect():
        found.setdefault(row.rank, []).extend(zip(row.tags, row.ids, strict=True))
        most[row.rank] = max(most.get(row.rank, 0), row.most)
    return found, most


def ids_of(found):
    return {rank: [number for _, number in rows] for rank, rows in found.items()}


@pytest.fixture(scope="module")
def uneven(spark):
    """A partition of each of SIZES, ids counting up from 1,000,000 times the partition."""
    sizes = f"element_at(array{SIZES}, cast(id as int) + 1)"
    rows = f"sequence(id * 1000000, id * 1000000 + {sizes} - 1)"
    none = "cast(array() as array<bigint>)"
    frame = spark.range(0, 4, 1, 4).selectExpr(f"explode(if({sizes} = 0, {none}, {rows})) as id")
    wide = frame.selectExpr("id", "cast(id as string) as text", "array(id, id) as pair")
    return prepare_frame(wide)[0]


def expected(partition):
    first = partition * 1_000_000
    return list(range(first, first + SIZES[partition]))


def test_as_many_partitions_as_ranks_arrive_as_they_are(uneven):
    found, most = ranks_of(deal_to_gang(uneven, 4))
    assert ids_of(found) == {rank: expected(rank) for rank in range(4)}
    assert max(most.values()) == 1000


def test_more_partitions_than_ranks_are_dealt_whole_and_in_order(uneven):
    found, _ = ranks_of(deal_to_gang(uneven, 2))
    assert ids_of(found) == {0: expected(0) + expected(1), 1: expected(2) + expected(3)}


def test_fewer_partitions_than_ranks_are_cut_evenly(spark):
    frame = spark.range(0, 10_001, 1, 2)
    found, _ = ranks_of(deal_to_gang(frame, 3))
    ids = ids_of(found)
    assert sorted(chain.from_iterable(ids.values())) == list(range(10_001))
    assert max(map(len, ids.values())) - min(map(len, ids.values())) <= 2
    # Each source's rows keep their order.
    for mine in ids.values():
        for half in ([n for n in mine if n < 5000], [n for n in mine if n >= 5000]):
            assert half == sorted(half)
    again, _ = ranks_of(deal_to_gang(frame, 3))
    assert ids_of(again) == ids


def test_a_number_of_partitions_that_only_the_query_tells_is_cut_too(spark):
    frame = spark.range(0, 3000).groupBy("id").count().select("id")
    found, _ = ranks_of(deal_to_gang(frame, 4))
    ids = ids_of(found)
    assert sorted(chain.from_iterable(ids.values())) == list(range(3000))
    assert all(600 < len(mine) < 900 for mine in ids.values())


def test_what_goes_to_the_first_rank_before_the_others_are_fed_does(spark):
    train = spark.range(0, 4000, 1, 4)
    together, _ = tag_frames({"train": train, "eval": spark.range(90_000, 90_010, 1, 3)})
    found, _ = ranks_of(deal_to_gang(together, 4))
    first = [(0, number) for number in range(90_000, 90_010)]
    assert found[0] == first + [(1, number) for number in range(1000)]
    for rank in (1, 2, 3):
        begin = rank * 1000
        assert found[rank] == [(1, number) for number in range(begin, begin + 1000)]


def test_every_rank_starts_though_the_query_finds_no_row(spark):
    for frame in (
        spark.range(0, 100, 1, 4).where("hash(id) = -1"),
        spark.range(0, 100, 1, 4).where("hash(id) = -1").groupBy("id").count().select("id"),
    ):
        found, _ = ranks_of(deal_to_gang(frame, 3))
        assert ids_of(found) == {0: [], 1: [], 2: []}


def test_what_is_known_to_be_empty_is_refused(spark):
    with pytest.raises(EmptyDataError):
        deal_to_gang(spark.range(0).where("false"), 2)


def test_what_was_shuffled_once_is_read_by_every_submission(spark, tmp_path):
    class Pack:
        """Tells of each time it runs."""

        def __call__(self, batches):
            import uuid

            (tmp_path / uuid.uuid4().hex).touch()
            yield from batches

    class Host:
        """Dies in the first submission."""

        def __call__(self, packed):
            from pyspark import BarrierTaskContext

            rank = BarrierTaskContext.get().partitionId()
            if rank == 1 and not (tmp_path / "dead").exists():
                (tmp_path / "dead").touch()
                os.kill(os.getpid(), 9)
            yield from take(packed)

    source = spark.range(0, 1000, 1, 4).mapInArrow(Pack(), "id long")
    frame = read_shuffled(deal_to_gang(source, 2))
    schema = "rank long, ids array<long>, tags array<long>, most long"
    with pytest.raises(Exception, match="failed barrier ResultStage"):
        frame.mapInArrow(Host(), schema, barrier=True).collect()
    rows = frame.mapInArrow(Host(), schema, barrier=True).collect()
    assert sorted(chain.from_iterable(row.ids for row in rows)) == list(range(1000))
    assert len(list(tmp_path.iterdir())) == 4 + 1


def test_a_batch_of_packed_ones_is_bounded_by_bytes(spark):
    def count_payloads(packed):
        import pyarrow as pa

        for batch in packed:
            yield pa.record_batch({"size": [batch.nbytes], "rows": [batch.num_rows]})

    before = spark.conf.get("spark.sql.execution.arrow.maxBytesPerBatch")
    spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(100_000))
    try:
        frame = read_shuffled(deal_to_gang(spark.range(0, 200_000, 1, 2), 2))
        found = frame.mapInArrow(count_payloads, "size long, rows long", barrier=True).collect()
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", before)
    # Two marks among them; each payload holds 1000 numbers of eight bytes.
    assert sum(row.rows for row in found) == 202
    assert max(row.size for row in found) < 150_000
