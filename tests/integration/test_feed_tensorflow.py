"""The feed inside TensorFlow: eager, functions, TF1 graphs, parameter-server workers."""

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from tfos import wire
from tfos.arrow_feed.dataset import AHEAD, PREFETCH, dataset, serve
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.service import FeedService
from tfos.arrow_feed.spool import SpoolWriter
from tfos.config import FeedConfig
from tfos.read_plan import FeedPosition, ReadPlan
from tfos.testing.ports import free_ports

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("default")]

tf = pytest.importorskip("tensorflow")

ROWS = 1000
TABLE = pa.table(
    {
        "i": pa.array(range(ROWS), pa.int64()),
        "a": pa.array(np.arange(ROWS) / 2, pa.float32()),
        "b": pa.array(np.arange(ROWS) * 3, pa.float32()),
        "k": pa.array(np.arange(ROWS) % 2 == 0),
        "s": [f"row {i}" for i in range(ROWS)],
        "v": pa.array([[i, -i] for i in range(ROWS)], pa.list_(pa.float64(), 2)),
        "l": pa.array([list(range(i % 5)) for i in range(ROWS)], pa.list_(pa.int32())),
        "t": [[f"{i}"] * (i % 3) for i in range(ROWS)],
    }
)
SCHEMA = FeedSchema.from_arrow(TABLE.schema)
PLAIN = ("i", "a", "b")


def spool_table(path, table):
    """Write a table as the spool of one feed, in small segments."""
    schema = FeedSchema.from_arrow(table.schema)
    config = FeedConfig(segment_bytes=1)
    with SpoolWriter([Place(path, 1 << 30)], {"train": schema}, config) as writer:
        for batch in table.to_batches(101):
            writer.write(batch)
    return writer


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    writer = spool_table(tmp_path_factory.mktemp("feed") / "spool", TABLE)
    reader = SpoolReader(writer.directory, wait_timeout_s=5)
    yield reader
    reader.close()
    writer.remove()


@pytest.fixture
def service(reader):
    service = FeedService({"train": reader}, 2)
    serve(service)
    yield service
    gc.collect()
    assert service.open_readings == 0


def rows(found):
    return found.to_list() if isinstance(found, tf.RaggedTensor) else found.numpy().tolist()


def numpy_rows(found):
    if isinstance(found, np.ndarray):
        return found.tolist()
    return [found.values[a:b].tolist() for a, b in pairwise(found.row_splits)]


@pytest.mark.parametrize(
    "plan",
    [
        ReadPlan(batch_size=128, epochs=2),
        ReadPlan(batch_size=128, shuffle_rows=300, seed=3),
        ReadPlan(batch_size=128, stack={"x": ("b", "a")}),
        ReadPlan(batch_size=128, columns=("t", "i"), start=FeedPosition(0, 500)),
        ReadPlan(batch_size=128, columns=PLAIN),
    ],
)
def test_tensors_hold_what_the_numpy_reading_holds(service, reader, plan):
    found = list(dataset(plan, SCHEMA))
    expected = [batch.columns for batch in reader.batches(plan)]
    assert len(found) == len(expected)
    for tensors, arrays in zip(found, expected, strict=True):
        assert {n: rows(t) for n, t in tensors.items()} == {
            n: numpy_rows(a) for n, a in arrays.items()
        }


def test_static_shapes_and_types_are_known(service):
    spec = dataset(ReadPlan(stack={"x": ("a", "b")}), SCHEMA).element_spec
    assert spec == {
        "i": tf.TensorSpec([None], tf.int64),
        "k": tf.TensorSpec([None], tf.bool),
        "x": tf.TensorSpec([None, 2], tf.float32),
        "s": tf.TensorSpec([None], tf.string),
        "v": tf.TensorSpec([None, 2], tf.float64),
        "l": tf.RaggedTensorSpec([None, None], tf.int32, 1),
        "t": tf.RaggedTensorSpec([None, None], tf.string, 1),
    }


@pytest.mark.parametrize("columns", [PLAIN, None])
def test_tracked_batches_tell_the_position(service, columns):
    plan = ReadPlan(batch_size=600, epochs=2, columns=columns)
    found = [status.numpy().tolist() for _, status in dataset(plan, SCHEMA, tracked=True)]
    assert found == [[2, 0, 600, 600], [2, 1, 0, 400], [2, 1, 600, 600], [2, 2, 0, 400]]


def test_an_endless_dataset_goes_on_without_rows(service):
    plan = ReadPlan(batch_size=600, stack={"x": ("a", "b")})
    found = list(dataset(plan, SCHEMA, tracked=True, endless=True).take(4))
    assert [status.numpy()[3] for _, status in found] == [600, 400, 0, 0]
    empty = found[-1][0]
    assert {name: t.shape.as_list()[0] for name, t in empty.items()} == dict.fromkeys(empty, 0)
    assert empty["v"].shape == [0, 2]
    assert empty["x"].shape == [0, 2]


def test_an_endless_dataset_of_no_rows_has_the_right_ranks(tmp_path):
    writer = spool_table(tmp_path / "spool", TABLE.slice(0, 0))
    serve(FeedService({"train": SpoolReader(writer.directory)}, 0))
    (batch,) = dataset(ReadPlan(), SCHEMA, endless=True).take(1)
    assert {name: rows(t) for name, t in batch.items()} == {name: [] for name in SCHEMA.names}
    assert list(dataset(ReadPlan(), SCHEMA)) == []
    writer.remove()


def test_iterators_at_the_same_time_do_not_disturb_each_other(service):
    data = dataset(ReadPlan(batch_size=10, columns=("i",)), SCHEMA)
    other = dataset(ReadPlan(batch_size=10, columns=("i",), shuffle_rows=100), SCHEMA)
    pairs = list(tf.data.Dataset.zip((data, data.prefetch(3), other)))
    assert len(pairs) == ROWS // 10
    assert all(rows(a["i"]) == rows(b["i"]) for a, b, _ in pairs)
    assert sorted(i for _, _, c in pairs for i in rows(c["i"])) == list(range(ROWS))


@pytest.mark.parametrize("tracked", [True, False])
def test_what_tensorflow_holds_ready_is_not_taken_for_used(service, tracked):
    """While a batch is in use, all that came before it are taken for used, or a few less."""
    data = dataset(ReadPlan(batch_size=10, epochs=2, columns=PLAIN), SCHEMA, tracked=tracked)
    # The common loop takes its own dataset as it is; others hold ready what they like.
    data, ahead = (data, PREFETCH + 2) if tracked else (data.prefetch(10), AHEAD)
    before = 0
    for element in data:
        epoch, row = service.used("train")
        used = epoch * ROWS + row
        assert before + 10 - ahead * 10 <= used <= before
        before += len((element[0] if tracked else element)["i"])
    assert before == 2 * ROWS


@pytest.mark.parametrize("endless", [True, False])
def test_a_replacing_process_continues_where_rows_are_surely_used(reader, service, endless):
    plan = ReadPlan(batch_size=100, epochs=2, columns=PLAIN)
    later = FeedService({"train": reader}, 2, FeedPosition(1, 300))
    serve(later)
    found = dataset(plan, SCHEMA, tracked=True, endless=endless)
    first = next(iter(found))[1].numpy().tolist()
    # Only the common loop's reading is one of which the position is known.
    assert first == ([2, 1, 400, 100] if endless else [2, 0, 100, 100])
    del found
    gc.collect()
    assert later.open_readings == 0


def test_an_abandoned_iterator_ends_its_reading(service):
    iterator = iter(dataset(ReadPlan(batch_size=10), SCHEMA).prefetch(2))
    next(iterator)
    assert service.open_readings == 1
    del iterator
    gc.collect()
    assert service.open_readings == 0


def test_usual_transformations_follow(service):
    data = dataset(ReadPlan(batch_size=100, columns=PLAIN), SCHEMA)
    total = data.unbatch().shuffle(50).map(lambda row: row["i"]).repeat(2).batch(64)
    assert sum(int(tf.reduce_sum(x)) for x in total) == 2 * sum(range(ROWS))


def test_a_function_loops_over_it(service):
    @tf.function
    def total(data):
        whole = tf.constant(0, tf.int64)
        for batch in data:
            whole += tf.reduce_sum(batch["i"])
        return whole

    assert int(total(dataset(ReadPlan(batch_size=64), SCHEMA))) == sum(range(ROWS))


@pytest.mark.parametrize("kind", ["one_shot", "initializable"])
@pytest.mark.parametrize("columns", [PLAIN, None])
def test_a_tf1_graph_reads_it(service, kind, columns):
    plan = ReadPlan(batch_size=300, columns=columns)
    with tf.Graph().as_default():
        data = dataset(plan, SCHEMA, tracked=True)
        if kind == "one_shot":
            iterator = tf.compat.v1.data.make_one_shot_iterator(data)
        else:
            iterator = tf.compat.v1.data.make_initializable_iterator(data)
        columns, status = iterator.get_next()
        with tf.compat.v1.Session() as session:
            for epoch in range(1 if kind == "one_shot" else 2):
                if kind == "initializable":
                    session.run(iterator.initializer)
                found = [session.run((columns["i"], status)) for _ in range(4)]
                with pytest.raises(tf.errors.OutOfRangeError):
                    session.run(status)
                assert np.concatenate([i for i, _ in found]).tolist() == list(range(ROWS)), epoch
                assert [s[3] for _, s in found] == [300, 300, 300, 100]


def test_the_writers_error_reaches_the_user(tmp_path):
    schema = FeedSchema.from_arrow(pa.schema([("i", pa.int64())]))
    writer = SpoolWriter([Place(tmp_path / "spool", 1 << 20)], {"train": schema}, FeedConfig())
    writer.abort(ZeroDivisionError("in pre_train's UDF"))
    serve(FeedService({"train": SpoolReader(writer.directory)}, 0))
    with pytest.raises(tf.errors.OpError, match="ZeroDivisionError: in pre_train's UDF"):
        list(dataset(ReadPlan(), schema))
    writer.remove()


def test_rows_are_read_while_they_are_written(tmp_path):
    schema = FeedSchema.from_arrow(TABLE.schema)
    writer = SpoolWriter([Place(tmp_path / "spool", 1 << 20)], {"train": schema}, FeedConfig())
    serve(FeedService({"train": SpoolReader(writer.directory, wait_timeout_s=20)}, 0))
    seen = threading.Event()

    def write():
        with writer:
            writer.write(TABLE.slice(0, 500).to_batches()[0])
            assert seen.wait(20)
            writer.write(TABLE.slice(500).combine_chunks().to_batches()[0])

    thread = threading.Thread(target=write)
    thread.start()
    found = []
    for batch in dataset(ReadPlan(batch_size=250, columns=("i",)), schema):
        found += rows(batch["i"])
        seen.set()
    thread.join(20)
    assert found == list(range(ROWS))
    writer.remove()


WORKER = """
    import sys
    import tensorflow as tf
    from tfos.arrow_feed.dataset import serve
    from tfos.arrow_feed.reader import SpoolReader
    from tfos.arrow_feed.service import FeedService
    cluster, task, index, spool = sys.argv[1:]
    import json
    if task == "worker":
        serve(FeedService({"train": SpoolReader(spool)}, int(index)))
    server = tf.distribute.Server(json.loads(cluster), task, int(index), protocol="grpc")
    print("ready", flush=True)
    server.join()
"""

CHIEF = """
    import json, sys
    import tensorflow as tf
    from tfos import wire
    from tfos.arrow_feed.dataset import dataset
    from tfos.arrow_feed.schema import FeedSchema
    from tfos.read_plan import ReadPlan
    cluster, schema = json.loads(sys.argv[1]), wire.from_json(FeedSchema, json.loads(sys.argv[2]))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    plan = ReadPlan(batch_size=64)
    made = coordinator.create_per_worker_dataset(
        lambda: dataset(plan, schema, tracked=True, endless=True))
    iterator = iter(made)

    @tf.function
    def step(iterator):
        columns, status = next(iterator)
        return tf.reduce_sum(columns["i"]), status, tf.reduce_sum(columns["l"])

    sums, rows, ended = {}, {}, set()
    while len(ended) < 2:
        values = [coordinator.schedule(step, args=(iterator,)) for _ in range(8)]
        for value in values:
            total, status, lists = value.fetch()
            feed = int(status[0])
            sums[feed] = sums.get(feed, 0) + int(total)
            rows[feed] = rows.get(feed, 0) + int(status[3])
            if int(status[3]) == 0:
                ended.add(feed)
    print(json.dumps([sums, rows]), flush=True)
"""


@pytest.mark.slow
def test_each_parameter_server_worker_reads_its_own_spool(tmp_path):
    halves = [TABLE.slice(0, 300), TABLE.slice(300)]
    writers = [spool_table(tmp_path / f"spool{i}", half) for i, half in enumerate(halves)]
    ports = free_ports(3)
    cluster = {
        "worker": [f"127.0.0.1:{p}" for p in ports[:2]],
        "ps": [f"127.0.0.1:{ports[2]}"],
    }
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    servers = []
    try:
        for task, index in (("worker", 0), ("worker", 1), ("ps", 0)):
            arguments = [json.dumps(cluster), task, str(index), str(writers[index].directory)]
            servers.append(
                subprocess.Popen(
                    [sys.executable, "-c", textwrap.dedent(WORKER), *arguments],
                    env=env,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for server in servers:
            assert server.stdout.readline() == "ready\n"
        chief = subprocess.run(
            [
                sys.executable,
                "-c",
                textwrap.dedent(CHIEF),
                json.dumps(cluster),
                json.dumps(wire.to_json(SCHEMA)),
            ],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert chief.returncode == 0, chief.stderr
        sums, counts = json.loads(chief.stdout.splitlines()[-1])
        assert counts == {"0": 300, "1": 700}
        assert sums == {"0": sum(range(300)), "1": sum(range(300, 1000))}
    finally:
        for server in servers:
            server.send_signal(signal.SIGKILL)
            server.communicate(timeout=10)
        for writer in writers:
            writer.remove()
