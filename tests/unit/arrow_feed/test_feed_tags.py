import pyarrow as pa

from tfos.arrow_feed.tags import TAG_COLUMN, split_by_tag, tag_order


def tagged(*tags):
    columns = {"x": pa.array(range(len(tags))), TAG_COLUMN: pa.array(tags, pa.int8())}
    return pa.record_batch(columns)


def test_train_has_the_last_tag():
    assert tag_order({"train": 0, "eval": 0, "test": 0, "z": 0}) == ("eval", "test", "z", "train")


def test_a_batch_is_split_where_its_tag_changes():
    parts = list(split_by_tag(tagged(0, 0, 1, 1, 1, 0), ("eval", "train")))
    assert [(name, part.column("x").to_pylist()) for name, part in parts] == [
        ("eval", [0, 1]),
        ("train", [2, 3, 4]),
        ("eval", [5]),
    ]


def test_a_batch_of_one_tag_passes_whole_and_an_empty_one_vanishes():
    batch = tagged(1, 1)
    (part,) = split_by_tag(batch, ("eval", "train"))
    assert part == ("train", batch)
    assert list(split_by_tag(tagged(), ("eval", "train"))) == []
