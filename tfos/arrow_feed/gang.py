"""Deal a DataFrame to a gang: through a shuffle, because a barrier stage reads nothing else.

Spark refuses a barrier stage whose partitions were merged or joined within it (SPARK-24820), so
its rows come out of a shuffle with exactly one partition a rank. Moving rows costs more than
converting them: whole Arrow batches are shuffled instead, each packed as one value of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tfos.arrow_feed.frame import check_not_empty, known_partitions
from tfos.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

__all__ = ["PACKED_SCHEMA", "PackBatches", "deal_to_gang", "read_shuffled", "unpack_batches"]

PACKED_SCHEMA: Final = "rank int, source int, seq bigint, payload binary"
"""A packed batch: whose it is, the source partition and its place there, and an Arrow stream.

An empty payload is a mark: it makes the shuffle exist even where no source has a row.
"""

_MARK_SEQ: Final = -1


def deal_to_gang(df: DataFrame, count: int, *, cut: bool = False) -> DataFrame:
    """Give each of `count` ranks a partition of packed batches. Runs on the driver; no job.

    Source partitions are dealt whole and in order where there are known to be enough: with exactly
    `count`, rank i gets partition i. With fewer, and where only running the query would tell, every
    batch is cut into one piece a rank. Each rank's rows are sorted: asked again, Spark gives them
    in the same order, as far as the query itself is repeatable.

    Parameters
    ----------
    df
        The DataFrame; `unpack_batches` gives its Arrow batches back.
    count
        Ranks, 1 or more.
    cut
        Give every rank a piece of every batch, however many partitions there are.

    Raises
    ------
    EmptyDataError
        If Spark knows without running it that the DataFrame has no rows.
    ConfigError
        If this PySpark cannot direct rows to a partition by its number.
    """
    from pyspark import __version__
    from pyspark.sql import DataFrame as SparkDataFrame

    if count < 1:
        raise ValueError(f"count is {count}: it must be 1 or more")
    if not hasattr(SparkDataFrame, "repartitionById"):
        raise ConfigError(f"PySpark is {__version__}: --arch ring needs 4.1 or newer: upgrade it")
    check_not_empty(df)
    sources = None if cut else known_partitions(df)
    whole = sources is not None and sources >= count
    packed = df.mapInArrow(PackBatches(count, sources if whole else None), PACKED_SCHEMA)
    dealt = packed.repartitionById(count, "rank").sortWithinPartitions("source", "seq")
    return dealt.select("payload")


def read_shuffled(dealt: DataFrame) -> DataFrame:
    """Shuffle what `deal_to_gang` made, and return a DataFrame that reads it however often.

    A query that failed is not run again by Spark's adaptive execution, and another one would do
    the shuffle, and all that comes before it, once more. Over one RDD, Spark finds what was
    shuffled and makes again only what was lost with an executor. Runs on the driver; blocks for as
    long as the query takes.
    """
    from pyspark.sql import DataFrame as SparkDataFrame

    session = dealt.sparkSession
    rows = dealt._jdf.javaRDD()
    frame = session._jsparkSession.createDataFrame(rows, dealt._jdf.schema())
    return SparkDataFrame(frame, session)


@dataclass(frozen=True)
class PackBatches:
    """The program that packs a source partition's batches; runs in a task of it.

    Parameters
    ----------
    count
        Ranks.
    sources
        Source partitions, where each is dealt to one rank; None to cut every batch.
    """

    count: int
    sources: int | None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield packed rows as `PACKED_SCHEMA`: after a mark, one batch of them for each batch."""
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        source = context.partitionId()
        yield _packed(source, _MARK_SEQ, [(self._ranks(source, 0)[0], b"")])
        for seq, batch in enumerate(batches):
            pieces = list(self._pieces(batch, source, seq))
            yield _packed(source, seq, [(rank, _to_bytes(piece)) for rank, piece in pieces])

    def _ranks(self, source: int, seq: int) -> list[int]:
        """Return the ranks that share a batch, in the order of its rows."""
        if self.sources is not None:
            return [source * self.count // self.sources]
        # Begun with another rank each time: who comes first gets the rows that do not divide.
        first = (source + seq) % self.count
        return [(first + n) % self.count for n in range(self.count)]

    def _pieces(
        self, batch: pa.RecordBatch, source: int, seq: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        ranks = self._ranks(source, seq)
        least, more = divmod(batch.num_rows, len(ranks))
        begin = 0
        for position, rank in enumerate(ranks):
            rows = least + (position < more)
            if rows:
                yield rank, batch.slice(begin, rows)
            begin += rows


def unpack_batches(packed: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the Arrow batches that were packed, one rank's, in order.

    Parameters
    ----------
    packed
        Batches with one column, ``payload``, as `deal_to_gang` makes them.
    """
    import pyarrow as pa

    for batch in packed:
        for payload in batch.column(0):
            # A copy of its own: a value lies in the batch wherever it happens to, and numbers are
            # to be where the processor and NumPy like them.
            data = payload.as_py()
            if data:
                with pa.ipc.open_stream(data) as stream:
                    yield from stream


def _packed(source: int, seq: int, pieces: list[tuple[int, bytes]]) -> pa.RecordBatch:
    import pyarrow as pa

    count = len(pieces)
    return pa.record_batch(
        [
            pa.array([rank for rank, _ in pieces], pa.int32()),
            pa.array([source] * count, pa.int32()),
            pa.array([seq] * count, pa.int64()),
            pa.array([payload for _, payload in pieces], pa.binary()),
        ],
        names=["rank", "source", "seq", "payload"],
    )


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())
