import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tfos.arrow_feed.blocks import Ragged
from tfos.arrow_feed.convert import BatchConverter
from tfos.arrow_feed.schema import FeedColumn, FeedSchema
from tfos.errors import NullValueError, SchemaMismatchError


def convert(array, nulls="error", offset=0):
    """Convert one column, through a slice where asked, and return it and its rows."""
    batch = pa.record_batch({"c": array}).slice(offset)
    rows = BatchConverter(FeedSchema.from_arrow(batch.schema), nulls)(batch)
    if rows is None:
        return None
    return rows.groups[0][0] if rows.groups else rows.singles[0]


def text(ragged):
    data = ragged.child.tobytes()
    return [data[a:b] for a, b in zip(ragged.splits[:-1], ragged.splits[1:], strict=True)]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, 2, 3], pa.int16()), [1, 2, 3]),
        (pa.array([True, False, True]), [True, False, True]),
        (pa.array([datetime.date(1970, 1, 1 + d) for d in range(3)]), [0, 1, 2]),
        (pa.array([0, 1, -1], pa.timestamp("us", "Asia/Tokyo")), [0, 1, -1]),
        (pa.array([0, 1, 2], pa.timestamp("ms")), [0, 1000, 2000]),
        (pa.array([5, 6, 7], pa.duration("us")), [5, 6, 7]),
        (pa.array([Decimal("1.50"), Decimal("-2.25"), Decimal("0")]), [1.5, -2.25, 0]),
    ],
)
def test_scalars_become_flat_arrays(array, expected, offset):
    found = convert(array, offset=offset)
    np.testing.assert_array_equal(found, expected[offset:])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_text_keeps_its_bytes(kind, offset):
    values = ["ü", "", "abc"]
    array = pa.array([v.encode() for v in values], pa.binary()).cast(kind)
    assert text(convert(array, offset=offset)) == [v.encode() for v in values][offset:]


@pytest.mark.parametrize("offset", [0, 1])
def test_lists_become_splits_and_values(offset):
    found = convert(pa.array([[9], [1, 2], [], [3]]), offset=offset)
    assert isinstance(found, Ragged)
    rows = [found.child[a:b].tolist() for a, b in zip(found.splits, found.splits[1:], strict=False)]
    assert rows == [[9], [1, 2], [], [3]][offset:]


def test_lists_of_text_nest():
    found = convert(pa.array([["a", "bc"], [], ["d"]]))
    assert found.splits.tolist() == [0, 2, 2, 3]
    assert text(found.child) == [b"a", b"bc", b"d"]


def lists_of_one_length(*rows):
    """Convert batches of lists whose length, as a vector's, only the data tell."""
    converter = BatchConverter(FeedSchema((FeedColumn("c", "float64", "fixed"),)), "zero")
    kind = pa.list_(pa.float64())
    return [converter(pa.record_batch({"c": pa.array(r, kind)})).singles[0] for r in rows]


def test_the_first_list_tells_the_length_of_all():
    first, second = lists_of_one_length([[1, 2], None], [None])
    np.testing.assert_array_equal(first, [[1, 2], [0, 0]])
    np.testing.assert_array_equal(second, [[0, 0]])


@pytest.mark.parametrize("rows", [([[1, 2], [3]],), ([[1, 2]], [[3]])])
def test_lists_of_two_lengths_are_refused(rows):
    with pytest.raises(SchemaMismatchError, match="'c' holds lists of 1 and of 2"):
        lists_of_one_length(*rows)


def test_nulls_before_any_list_have_no_length():
    with pytest.raises(NullValueError, match="only nulls so far"):
        lists_of_one_length([None, None])


def test_arrays_said_to_have_one_length_become_a_matrix():
    batch = pa.record_batch({"c": pa.array([[1, 2], [3, 4]])})
    schema = FeedSchema((FeedColumn("c", "int64", "fixed", 2),))
    rows = BatchConverter(schema, "error")(batch)
    np.testing.assert_array_equal(rows.singles[0], [[1, 2], [3, 4]])
    with pytest.raises(SchemaMismatchError, match="lists of 1 and of 2"):
        BatchConverter(schema, "error")(pa.record_batch({"c": pa.array([[1]])}))


NULLS = [
    (pa.array([1, None, 3]), 1),
    (pa.array([True, None, None]), 2),
    (pa.array(["a", None, "b"]), 1),
    (pa.array([[1], None, [2]]), 1),
    (pa.array([[1], [2, None, None], [None]]), 2),
    (pa.array([["a"], ["b", None], []]), 1),
    (pa.array([[1, 2], None, [3, None]], pa.list_(pa.int32(), 2)), 1),
]


@pytest.mark.parametrize(("array", "rows"), NULLS)
def test_nulls_are_refused_by_column_and_count(array, rows):
    with pytest.raises(NullValueError, match=f"'c' holds nulls in {rows} of the 3") as caught:
        convert(array)
    assert (caught.value.column, caught.value.rows) == ("c", rows)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None, 3]), [1, 0, 3]),
        (pa.array([True, None, None]), [True, False, False]),
        (pa.array([None, 1], pa.timestamp("us")), [0, 1]),
        (pa.array([Decimal("1.5"), None]), [1.5, 0]),
        (pa.array([[1, 2], None, [3, None]], pa.list_(pa.int32(), 2)), [[1, 2], [0, 0], [3, 0]]),
    ],
)
def test_nulls_become_zero_where_asked(array, expected):
    np.testing.assert_array_equal(convert(array, "zero"), expected)


def test_what_lies_under_a_null_does_not_show():
    hidden = pa.array([7, 8, 9], pa.int32())
    buffers = [pa.py_buffer(b"\x05"), hidden.buffers()[1]]
    array = pa.Array.from_buffers(pa.int32(), 3, buffers, null_count=1)
    assert array.to_pylist() == [7, None, 9]
    assert convert(array, "zero").tolist() == [7, 0, 9]


def test_null_text_and_lists_become_empty_where_asked():
    assert text(convert(pa.array(["a", None, "b"]), "zero")) == [b"a", b"", b"b"]
    found = convert(pa.array([[1, None], None, [2]]), "zero")
    assert (found.splits.tolist(), found.child.tolist()) == ([0, 2, 2, 3], [1, 0, 2])


def test_a_null_list_over_hidden_values_is_empty():
    lists = pa.ListArray.from_arrays(
        [0, 1, 3, 4], [7, 8, 9, 10], mask=pa.array([False, True, False])
    )
    found = convert(lists, "zero")
    assert (found.splits.tolist(), found.child.tolist()) == ([0, 1, 1, 2], [7, 10])


@pytest.mark.parametrize(("array", "rows"), NULLS)
def test_rows_with_nulls_are_dropped_where_asked(array, rows):
    other = pa.array([10, 20, 30])
    batch = pa.record_batch({"c": array, "other": other})
    found = BatchConverter(FeedSchema.from_arrow(batch.schema), "drop")(batch)
    assert found.rows < 3
    kept = [i for i, v in enumerate(array.to_pylist()) if v is not None]
    kept = [
        i for i in kept if not (isinstance(array[i].as_py(), list) and None in array[i].as_py())
    ]
    numbers = next(a for group in found.groups for a in group if a.dtype == np.int64 and max(a) > 9)
    assert numbers.tolist() == [10 * (i + 1) for i in kept]


def test_a_batch_without_rows_is_nothing():
    assert convert(pa.array([], pa.int32())) is None
    assert convert(pa.array([None, None], pa.int32()), "drop") is None


def test_struct_fields_are_found_through_null_structs():
    array = pa.array([{"x": 1, "y": {"z": 2}}, None])
    batch = pa.record_batch({"a": array})
    schema = FeedSchema.from_arrow(batch.schema)
    rows = BatchConverter(schema, "zero")(batch)
    assert schema.names == ("a.x", "a.y.z")
    assert [a.tolist() for a in rows.groups[0]] == [[1, 0], [2, 0]]


@pytest.mark.parametrize(
    "batch",
    [pa.record_batch({"d": [1]}), pa.record_batch({"c": ["x"]}), pa.record_batch({"c": [[1]]})],
)
def test_batches_of_another_schema_are_refused(batch):
    converter = BatchConverter(FeedSchema((FeedColumn("c", "int64"),)), "error")
    with pytest.raises(SchemaMismatchError, match="'c'"):
        converter(batch)


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([1, None], pa.int32(), "fill them with df.fillna({'c': 0}), or drop the rows"),
        ([1.0, None], pa.float64(), "fill them with df.fillna({'c': 0.0}), or drop the rows"),
        ([True, None], pa.bool_(), "fill them with df.fillna({'c': False}), or drop the rows"),
        (["a", None], pa.string(), "fill them with df.fillna({'c': ''}), or drop the rows"),
        ([b"a", None], pa.binary(), "in pre_train drop the rows with df.dropna(subset=['c'])"),
        ([1, None], pa.timestamp("us"), "in pre_train drop the rows with df.dropna(subset=['c'])"),
        ([[1], None], pa.list_(pa.int32()), "filter or replace them, in the lists of 'c' as well"),
    ],
)
def test_the_way_on_from_nulls_is_of_that_column(values, kind, words):
    with pytest.raises(NullValueError) as told:
        convert(pa.array(values, kind))
    assert words in str(told.value)


def test_the_way_on_from_nulls_in_a_struct_is_one_that_spark_takes():
    schema = pa.schema([("u", pa.struct([("age", pa.int32())]))])
    converter = BatchConverter(FeedSchema.from_arrow(schema), "error")
    with pytest.raises(NullValueError, match=r"df\.filter\('u\.age IS NOT NULL'\)"):
        converter(pa.record_batch({"u": pa.array([{"age": None}], schema.field("u").type)}))
