import pyarrow as pa
import pytest

from tfos import wire
from tfos.arrow_feed.schema import FeedColumn, FeedSchema
from tfos.arrow_feed.selection import Selection
from tfos.errors import ExitCode, SchemaMismatchError, UnsupportedTypeError
from tfos.read_plan import ReadPlan


@pytest.mark.parametrize(
    ("arrow_type", "dtype", "shape", "size"),
    [
        (pa.int8(), "int8", "scalar", None),
        (pa.int16(), "int16", "scalar", None),
        (pa.int32(), "int32", "scalar", None),
        (pa.int64(), "int64", "scalar", None),
        (pa.float32(), "float32", "scalar", None),
        (pa.float64(), "float64", "scalar", None),
        (pa.bool_(), "bool", "scalar", None),
        (pa.string(), "string", "scalar", None),
        (pa.large_string(), "string", "scalar", None),
        (pa.binary(), "string", "scalar", None),
        (pa.date32(), "int32", "scalar", None),
        (pa.timestamp("us", "UTC"), "int64", "scalar", None),
        (pa.timestamp("us"), "int64", "scalar", None),
        (pa.duration("us"), "int64", "scalar", None),
        (pa.decimal128(10, 2), "float64", "scalar", None),
        (pa.list_(pa.int32()), "int32", "ragged", None),
        (pa.list_(pa.string()), "string", "ragged", None),
        (pa.list_(pa.float32(), 3), "float32", "fixed", 3),
    ],
)
def test_each_arrow_type_becomes_a_tensor(arrow_type, dtype, shape, size):
    schema = FeedSchema.from_arrow(pa.schema([("c", arrow_type)]))
    assert schema.columns == (FeedColumn("c", dtype, shape, size),)


@pytest.mark.parametrize(
    "arrow_type",
    [
        pa.map_(pa.string(), pa.int32()),
        pa.list_(pa.list_(pa.int32())),
        pa.list_(pa.struct([("a", pa.int32())])),
        pa.list_(pa.string(), 2),
        pa.null(),
        pa.time64("us"),
    ],
)
def test_other_types_are_refused_by_name(arrow_type):
    with pytest.raises(UnsupportedTypeError, match="'c'") as caught:
        FeedSchema.from_arrow(pa.schema([("c", arrow_type)]))
    assert caught.value.exit_code == ExitCode.CONFIG
    assert caught.value.column == "c"
    assert caught.value.type_name == str(arrow_type)


def test_structs_become_columns_named_by_path():
    inner = pa.struct([("c", pa.string())])
    schema = FeedSchema.from_arrow(pa.schema([("a", pa.struct([("b", inner), ("x", pa.int8())]))]))
    assert schema.names == ("a.b.c", "a.x")


def test_schema_survives_json():
    schema = FeedSchema.from_arrow(
        pa.schema([("a", pa.int8()), ("b", pa.list_(pa.float32(), 3)), ("c", pa.string())])
    )
    assert wire.from_json(FeedSchema, wire.to_json(schema)) == schema


def test_unknown_column_names_the_nearest():
    schema = FeedSchema((FeedColumn("rating", "float32"), FeedColumn("user", "int64")))
    with pytest.raises(SchemaMismatchError, match="did you mean 'rating'"):
        schema.column("ratings")


def test_a_name_twice_is_refused():
    with pytest.raises(SchemaMismatchError, match="a"):
        FeedSchema((FeedColumn("a", "int8"), FeedColumn("a", "int8")))


SCHEMA = FeedSchema(
    (
        *(FeedColumn(f"f{i}", "float32") for i in range(4)),
        FeedColumn("i", "int64"),
        FeedColumn("s", "string"),
    )
)


def test_selection_takes_consecutive_columns_as_a_slice():
    selection = Selection.of(SCHEMA, ReadPlan(columns=("f1", "f2", "s")))
    assert selection.names == ("f1", "f2", "s")
    assert selection.scalars[0].wanted == slice(1, 3)


def test_stacked_columns_are_delivered_once():
    selection = Selection.of(SCHEMA, ReadPlan(stack={"x": ("f3", "f0")}))
    assert selection.names == ("f1", "f2", "i", "x", "s")
    assert selection.stacks[0][1].wanted == (3, 0)


def test_narrowed_selection_finds_the_same_columns_among_the_needed_ones():
    plan = ReadPlan(columns=("f2",), stack={"x": ("f3", "f0")})
    needed, narrowed = Selection.of(SCHEMA, plan).narrowed()
    assert needed[0] == (0, 2, 3)
    assert narrowed.scalars[0].wanted == slice(1, 2)
    assert narrowed.stacks[0][1].wanted == (2, 0)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ReadPlan(stack={"x": ("f0", "i")}), "one dtype"),
        (ReadPlan(stack={"x": ("s",)}), "one dtype"),
        (ReadPlan(stack={"x": ()}), "none"),
        (ReadPlan(stack={"i": ("f0",)}), "has that name"),
        (ReadPlan(columns=()), "no column"),
        (ReadPlan(columns=("nope",)), "nope"),
    ],
)
def test_wrong_selections_are_refused(plan, message):
    with pytest.raises(SchemaMismatchError, match=message):
        Selection.of(SCHEMA, plan)
