"""From a DataFrame, through mapInArrow and a spool, to batches: on a real local Spark."""

import datetime
import itertools
import time
from decimal import Decimal

import numpy as np
import pytest
from support.spark_session import spark_session

from tfos.arrow_feed.frame import LENGTH_METADATA, partition_for, prepare_frame, tag_frames
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.reader import RaggedArray, SpoolReader
from tfos.arrow_feed.schema import FeedColumn
from tfos.arrow_feed.spool import SpoolWriter
from tfos.arrow_feed.tags import split_by_tag, tag_order
from tfos.config import FeedConfig
from tfos.errors import EmptyDataError, SchemaMismatchError, UnsupportedTypeError
from tfos.read_plan import ReadPlan

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def spark():
    properties = {
        "spark.sql.session.timeZone": "Asia/Tokyo",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100",
    }
    with spark_session(__name__, "local[2]", properties) as session:
        yield session


class SpoolPartition:
    """Write each partition of a DataFrame into a spool of its own, as a role host does."""

    def __init__(self, root, schemas, config):
        self.root, self.schemas, self.config = str(root), schemas, config

    def __call__(self, batches):
        from pathlib import Path

        import pyarrow as pa
        from pyspark import TaskContext

        path = Path(self.root) / f"role-{TaskContext.get().partitionId()}"
        names = tag_order(self.schemas)
        with SpoolWriter([Place(path, 1 << 30)], self.schemas, self.config) as spool:
            for batch in batches:
                if len(names) == 1:
                    spool.write(batch, names[0])
                    continue
                for name, part in split_by_tag(batch, names):
                    spool.write(part, name)
        yield pa.record_batch({"rows": [sum(spool.rows.values())]})


def feed(df, schemas, root, **config):
    """Spool a prepared DataFrame; return a reader for each partition."""
    program = SpoolPartition(root, schemas, FeedConfig(**config))
    rows = [row.rows for row in df.mapInArrow(program, "rows long").collect()]
    return [SpoolReader(root / f"role-{i}", wait_timeout_s=5) for i in range(len(rows))]


def whole(reader, **plan):
    (batch,) = reader.batches(ReadPlan(batch_size=1 << 20, **plan))
    return batch.columns


def plain(column):
    """Return a column as Python lists."""
    if isinstance(column, RaggedArray):
        splits = column.row_splits
        return [column.values[a:b].tolist() for a, b in itertools.pairwise(splits)]
    return column.tolist()


TYPES = {
    "by": ("cast(1 as tinyint)", "int8", 1),
    "sh": ("cast(2 as smallint)", "int16", 2),
    "in": ("3", "int32", 3),
    "bi": ("cast(4 as bigint)", "int64", 4),
    "fl": ("cast(0.5 as float)", "float32", 0.5),
    "do": ("cast(0.25 as double)", "float64", 0.25),
    "bo": ("true", "bool", True),
    "st": ("'tä'", "string", "tä".encode()),
    "va": ("cast('v' as varchar(5))", "string", b"v"),
    "bn": ("cast('bin' as binary)", "string", b"bin"),
    "de": ("cast(1.25 as decimal(10, 2))", "float64", 1.25),
    "da": ("date'1970-01-03'", "int32", 2),
    "ts": ("timestamp'1970-01-01 09:00:01'", "int64", 1_000_000),
    "tn": ("timestamp_ntz'1970-01-01 00:00:01'", "int64", 1_000_000),
    "iv": ("interval '1 00:00:02' day to second", "int64", 86_402_000_000),
    "ai": ("array(1, 2)", "int32", [1, 2]),
    "as": ("array('x', 'yz')", "string", [b"x", b"yz"]),
    "ab": ("array(true, false)", "bool", [True, False]),
    "ad": ("array(cast(1.5 as decimal(5, 1)))", "float64", [1.5]),
    "at": ("array(date'1970-01-02')", "int32", [1]),
}


def test_every_type_arrives_as_declared(spark, tmp_path):
    df = spark.range(3).selectExpr(*(f"{sql} as `{n}`" for n, (sql, _, _) in TYPES.items()))
    prepared, schema = prepare_frame(df)
    assert {c.name: c.dtype for c in schema.columns} == {n: d for n, (_, d, _) in TYPES.items()}
    (reader,) = feed(prepared.coalesce(1), {"train": schema}, tmp_path)
    columns = whole(reader)
    assert {n: plain(c) for n, c in columns.items()} == {
        n: [v] * 3 for n, (_, _, v) in TYPES.items()
    }
    for column in schema.columns:
        array = columns[column.name]
        array = array.values if isinstance(array, RaggedArray) else array
        assert array.dtype == (object if column.dtype == "string" else column.dtype), column.name


def test_structs_are_flattened_whatever_their_names(spark, tmp_path):
    df = spark.sql(
        "select named_struct('x', 1, 'in`ner', named_struct('y z', 'q', 'd', 2.5bd)) as `a.b`, "
        "7 as c, 8 as `100%25`, 9 as `1.5`"
    )
    prepared, schema = prepare_frame(df)
    assert schema.names == ("a.b.x", "a.b.in`ner.y z", "a.b.in`ner.d", "c", "100%25", "1.5")
    (reader,) = feed(prepared, {"train": schema}, tmp_path)
    assert [plain(c) for c in whole(reader).values()] == [[1], [7], [8], [9], [2.5], [b"q"]]


def test_vectors_dense_and_sparse_arrive_as_a_matrix(spark, tmp_path):
    from pyspark.ml.feature import VectorAssembler
    from pyspark.ml.linalg import Vectors

    rows = [(Vectors.dense([1.0, 2.0, 0.0]),), (Vectors.sparse(3, [2], [5.0]),)]
    df = spark.createDataFrame(rows, ["v"]).coalesce(1)
    prepared, schema = prepare_frame(df)
    assert schema.columns == (FeedColumn("v", "float64", "fixed"),)
    (reader,) = feed(prepared, {"train": schema}, tmp_path / "a")
    np.testing.assert_array_equal(whole(reader)["v"], [[1, 2, 0], [0, 0, 5]])

    with_null = df.union(spark.sql("select null").to(df.schema)).coalesce(1)
    (reader,) = feed(prepare_frame(with_null)[0], {"train": schema}, tmp_path / "n", nulls="zero")
    np.testing.assert_array_equal(whole(reader)["v"], [[1, 2, 0], [0, 0, 5], [0, 0, 0]])

    inputs = spark.createDataFrame([(1.0, 2.0), (0.0, 0.0)], ["p", "q"]).coalesce(1)
    assembled = VectorAssembler(inputCols=["p", "q"], outputCol="v").transform(inputs)
    prepared, schema = prepare_frame(assembled.select("v"))
    assert schema.columns == (FeedColumn("v", "float64", "fixed", 2),)
    (reader,) = feed(prepared, {"train": schema}, tmp_path / "b")
    np.testing.assert_array_equal(whole(reader)["v"], [[1, 2], [0, 0]])


def test_an_array_said_to_have_one_length_is_a_matrix(spark, tmp_path):
    df = spark.sql("select array(1, 2, 3) as a")
    prepared, schema = prepare_frame(df.withMetadata("a", {LENGTH_METADATA: 3}))
    (reader,) = feed(prepared, {"train": schema}, tmp_path)
    assert whole(reader)["a"].shape == (1, 3)
    with pytest.raises(SchemaMismatchError, match=r"tfos\.length"):
        prepare_frame(df.withMetadata("a", {LENGTH_METADATA: "three"}))


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("map('a', 1)", "map<string,int>"),
        ("array(named_struct('a', 1))", "array<struct<a:int>>"),
        ("array(array(1))", "array<array<int>>"),
        ("null", "void"),
        ("interval '1' year", "interval year"),
        ("parse_json('1')", "variant"),
        ("named_struct('deep', map('a', 1))", "map<string,int>"),
    ],
)
def test_other_types_are_refused_before_any_job(spark, sql, kind):
    df = spark.sql(f"select {sql} as c, assert_true(false) as boom")
    with pytest.raises(UnsupportedTypeError, match="'c") as caught:
        prepare_frame(df)
    assert caught.value.type_name == kind


@pytest.mark.parametrize("sql", ["1 as a, 2 as A", "1 as a, 2 as a", "1 as `__tfos_dataset__`"])
def test_confusing_names_are_refused(spark, sql):
    with pytest.raises(SchemaMismatchError, match="rename"):
        prepare_frame(spark.sql(f"select {sql}"))


def test_a_frame_without_columns_is_refused(spark):
    with pytest.raises(SchemaMismatchError, match="no columns"):
        prepare_frame(spark.range(1).select())


def test_a_plain_frame_is_left_as_it_is(spark):
    df = spark.range(3)
    assert prepare_frame(df)[0] is df


def test_frames_travel_tagged_and_are_told_apart(spark, tmp_path):
    train = spark.range(0, 1000, numPartitions=4).selectExpr("id", "id * 2 as twice")
    test = spark.range(5000, 5010, numPartitions=2).selectExpr("id", "cast(id as string) as name")
    frame, schemas = tag_frames({"train": train, "eval": test})
    assert schemas["eval"].names == ("id", "name")
    (reader,) = feed(frame.coalesce(1), schemas, tmp_path)
    found = whole(reader, name="eval")
    assert found["id"].tolist() == list(range(5000, 5010))
    assert found["name"].tolist() == [str(i).encode() for i in range(5000, 5010)]
    assert whole(reader)["twice"].tolist() == [2 * i for i in range(1000)]


def test_one_name_with_two_types_is_refused(spark):
    frames = {"train": spark.sql("select 1 as x"), "eval": spark.sql("select 1.5d as x")}
    with pytest.raises(SchemaMismatchError, match=r"double in 'eval'.*int in 'train'|int .*double"):
        tag_frames(frames)


def test_partitions_become_as_many_as_roles(spark):
    many = spark.range(0, 100, numPartitions=7)
    grouped = many.groupBy((many.id % 5).alias("k")).count()
    for df in (many, spark.range(0, 100, numPartitions=1), grouped):
        for count in (1, 2, 4):
            assert partition_for(df, count).rdd.getNumPartitions() == count
    plan = partition_for(many, 4)._jdf.queryExecution().executedPlan().toString()
    assert "Exchange" not in plan
    with pytest.raises(ValueError, match="count is 0"):
        partition_for(many, 0)


def test_a_frame_without_rows_is_refused_or_still_starts_every_role(spark, tmp_path):
    for df in (spark.range(9).where("false"), spark.range(9).limit(0)):
        with pytest.raises(EmptyDataError, match="no rows"):
            partition_for(df, 2)
    df, schema = prepare_frame(spark.range(9).where("id < 0"))
    readers = feed(partition_for(df, 2), {"train": schema}, tmp_path)
    assert [reader.rows() for reader in readers] == [0, 0]


def test_every_role_gets_rows_of_few_partitions(spark, tmp_path):
    df, schema = prepare_frame(spark.range(0, 1000, numPartitions=1))
    readers = feed(partition_for(df, 3), {"train": schema}, tmp_path)
    counts = [reader.rows() for reader in readers]
    assert sum(counts) == 1000
    assert min(counts) > 300
    ids = np.concatenate([whole(reader)["id"] for reader in readers])
    assert sorted(ids.tolist()) == list(range(1000))


def test_nulls_fail_the_task_and_the_reader_alike(spark, tmp_path):
    df = spark.sql("select explode(array(1, null, 3)) as x").coalesce(1)
    prepared, schema = prepare_frame(df)
    with pytest.raises(Exception, match=r"NullValueError.*'x'"):
        feed(prepared, {"train": schema}, tmp_path / "a")
    reader = SpoolReader(tmp_path / "a" / "role-0")
    with pytest.raises(Exception, match="'x' holds nulls in 1 of the 3 rows"):
        list(reader.batches(ReadPlan()))
    (reader,) = feed(prepared, {"train": schema}, tmp_path / "b", nulls="drop")
    assert whole(reader)["x"].tolist() == [1, 3]


def test_values_survive_the_whole_way(spark, tmp_path):
    started = time.monotonic()
    df = spark.range(0, 20_000, numPartitions=3).selectExpr(
        "id", "cast(id as float) / 3 as f", "concat('row ', id) as s", "sequence(0, id % 4) as l"
    )
    prepared, schema = prepare_frame(df)
    readers = feed(partition_for(prepared, 2), {"train": schema}, tmp_path, segment_bytes=50_000)
    rows = 0
    for reader in readers:
        for batch in reader.batches(ReadPlan(batch_size=333, shuffle_rows=1000)):
            ids = batch.columns["id"]
            rows += batch.rows
            np.testing.assert_array_equal(
                batch.columns["f"], ids.astype(np.float32) / np.float64(3)
            )
            assert batch.columns["s"].tolist() == [f"row {i}".encode() for i in ids]
            assert plain(batch.columns["l"]) == [list(range(i % 4 + 1)) for i in ids]
    assert rows == 20_000
    assert time.monotonic() - started < 60


def test_python_values_agree_with_sparks(spark, tmp_path):
    moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    values = [(Decimal("12.34"), moment.date(), moment)]
    df = spark.createDataFrame(values, "de decimal(8,2), da date, ts timestamp").coalesce(1)
    prepared, schema = prepare_frame(df)
    (reader,) = feed(prepared, {"train": schema}, tmp_path)
    found = {n: plain(c)[0] for n, c in whole(reader).items()}
    assert found == {
        "de": 12.34,
        "da": (moment.date() - datetime.date(1970, 1, 1)).days,
        "ts": int(moment.timestamp() * 1_000_000),
    }
