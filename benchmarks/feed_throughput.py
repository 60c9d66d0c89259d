"""Measure the feed: a DataFrame to tensors in another process, against bare mapInArrow.

Table W: 14 float32 and 26 int64 columns, 264 bytes a row. Everything is measured in one run, the
variants in turn, so that a busy machine slows all of them. Prints rows a second and ratios.

    python benchmarks/feed_throughput.py --rows 1000000 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tfos.arrow_feed.frame import prepare_frame
from tfos.arrow_feed.places import Place
from tfos.arrow_feed.reader import SpoolReader
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.spool import SpoolWriter
from tfos.config import FeedConfig
from tfos.read_plan import ReadPlan

FLOATS = tuple(f"f{i}" for i in range(14))
INTEGERS = tuple(f"i{i}" for i in range(26))
STACK = {"floats": FLOATS, "integers": INTEGERS}
BATCH_ROWS = 1024


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-rows", type=int, default=4096, help="rows of an Arrow batch")
    parser.add_argument("--read", metavar="SPOOL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        read_on_request(Path(options.read))
        return
    root = Path(tempfile.mkdtemp(prefix="tfos-bench-", dir=_memory_directory()))
    try:
        measure(options, root)
    finally:
        shutil.rmtree(root)


def measure(options: argparse.Namespace, root: Path) -> None:
    """Run every variant and print its figures."""
    spark = start_spark(options.batch_rows)
    df, schema = prepare_frame(table_w(spark, options.rows))
    bare: list[float] = []
    spooled: list[float] = []
    first: list[float] = []
    timed(lambda: df.mapInArrow(drop_all, "rows long").collect())
    later: dict[str, list[float]] = {}
    for repeat in range(options.repeats):
        bare.append(timed(lambda: df.mapInArrow(drop_all, "rows long").collect()))
        alone = root / f"alone{repeat}"
        spooled.append(timed(partial(spool, df, schema, alone)))
        shutil.rmtree(alone)
        path = root / f"read{repeat}"
        with Reader(path) as reader:
            start = time.perf_counter()
            reader.ask("tensors dict")
            spool(df, schema, path)
            reader.answer()
            first.append(time.perf_counter() - start)
            for variant in VARIANTS:
                reader.ask(variant)
                later.setdefault(variant, []).append(reader.answer())
        shutil.rmtree(path)
    spark.stop()
    report(options, bare, spooled, first, later)


def report(
    options: argparse.Namespace,
    bare: list[float],
    spooled: list[float],
    first: list[float],
    later: dict[str, list[float]],
) -> None:
    """Print rows a second, best and median, and the ratio of medians to bare mapInArrow."""
    print(f"{options.rows} rows, {options.repeats} repeats, {os.cpu_count()} cores, M rows/s:")
    print(f"{'':44}{'median':>8}{'best':>8}{'ratio':>8}")
    base = statistics.median(bare)
    lines = [
        ("mapInArrow, batches dropped", bare),
        ("mapInArrow into the spool, nobody reads", spooled),
        ("mapInArrow, spool, first epoch to tensors", first),
        *((f"later epochs: {variant}", seconds) for variant, seconds in later.items()),
    ]
    for name, seconds in lines:
        middle, best = statistics.median(seconds), min(seconds)
        rates = [options.rows / s / 1e6 for s in (middle, best)]
        print(f"{name:44}{rates[0]:8.2f}{rates[1]:8.2f}{base / middle:8.2f}")


# -- the writing side ---------------------------------------------------------------------------


def start_spark(batch_rows: int) -> Any:
    """Return a session of one task at a time."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(batch_rows))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def table_w(spark: Any, rows: int) -> Any:
    """Return table W, computed as it is read."""
    floats = [f"cast(id % {1000 + i} as float) as {name}" for i, name in enumerate(FLOATS)]
    integers = [f"id * {i + 1} as {name}" for i, name in enumerate(INTEGERS)]
    return spark.range(0, rows, numPartitions=1).selectExpr(*floats, *integers)


def drop_all(batches: Iterator[Any]) -> Iterator[Any]:
    """Consume batches and give back their number of rows."""
    import pyarrow as pa

    yield pa.record_batch({"rows": [sum(batch.num_rows for batch in batches)]})


def spool(df: Any, schema: FeedSchema, path: Path) -> None:
    """Write a DataFrame of one partition into a spool."""

    def write(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        with SpoolWriter([Place(path, 1 << 40)], {"train": schema}, FeedConfig()) as writer:
            for batch in batches:
                writer.write(batch)
        yield pa.record_batch({"rows": [writer.rows["train"]]})

    df.mapInArrow(write, "rows long").collect()


# -- the reading side, a process of its own -----------------------------------------------------


class Reader:
    """A process that reads a spool when asked to."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--read", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )
        self._line()

    def ask(self, variant: str) -> None:
        """Start reading one epoch."""
        assert self._process.stdin is not None
        print(variant, file=self._process.stdin, flush=True)

    def answer(self) -> float:
        """Wait for the epoch's end and return the seconds it took."""
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the reading process ended: see its error above")
        return line

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=30)


def read_on_request(path: Path) -> None:
    """Read an epoch in the way each line of standard input says; answer with the seconds."""
    import tensorflow as tf

    tf.constant(1)
    print("ready", flush=True)
    reader: SpoolReader | None = None
    for line in sys.stdin:
        # The spool appears once Spark has started the writer.
        reader = reader or SpoolReader(path, wait_timeout_s=120)
        run = VARIANTS[line.strip()](reader)
        print(timed(run), flush=True)


def _numpy(**plan: Any) -> Callable[[SpoolReader], Callable[[], None]]:
    def prepare(reader: SpoolReader) -> Callable[[], None]:
        def run() -> None:
            for _ in reader.batches(ReadPlan(batch_size=BATCH_ROWS, **plan)):
                pass

        return run

    return prepare


def _tensors(eager: bool = False, **plan: Any) -> Callable[[SpoolReader], Callable[[], None]]:
    def prepare(reader: SpoolReader) -> Callable[[], None]:
        import tensorflow as tf

        from tfos.arrow_feed.dataset import dataset, serve
        from tfos.arrow_feed.service import FeedService

        serve(FeedService({"train": reader}, 0))
        data = dataset(ReadPlan(batch_size=BATCH_ROWS, **plan), reader.schema()).prefetch(4)

        def loop() -> Any:
            rows = tf.constant(0, tf.int64)
            for batch in data:
                rows += tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
            return rows

        def each() -> None:
            for _ in data:
                pass

        if eager:
            return each
        return tf.function(loop).get_concrete_function()

    return prepare


VARIANTS = {
    "tensors dict": _tensors(),
    "tensors stack": _tensors(stack=STACK),
    "tensors dict, shuffled": _tensors(shuffle_rows=65_536),
    "tensors dict, eager loop": _tensors(eager=True),
    "tensors stack, eager loop": _tensors(eager=True, stack=STACK),
    "numpy dict": _numpy(),
    "numpy stack": _numpy(stack=STACK),
    "numpy dict, shuffled": _numpy(shuffle_rows=65_536),
}


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _memory_directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    main()
