"""Give a feed to TensorFlow as a `tf.data.Dataset`. The feed's only use of TensorFlow.

The source is a PyFunc op whose token is a fixed name, not one drawn when the graph is built: the op
calls into whichever process it runs in. So a dataset function traced on a parameter-server chief
reads, on each worker, that worker's own spool. The registry of tokens is private to TensorFlow: it
is touched in `serve` alone, and a contract test says when a release moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfos import wire
from tfos.arrow_feed.schema import FeedSchema
from tfos.arrow_feed.selection import Selection
from tfos.arrow_feed.service import FeedService, ReadingRequest, Transport
from tfos.errors import FeedError
from tfos.read_plan import FeedPosition, ReadPlan

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["TOKEN", "count_rows", "dataset", "serve"]

PREFETCH = 2
"""Batches that a dataset holds ready."""
AHEAD = 16
"""How far ahead of their use a program's own dataset may hand out batches, at most, for a process
that replaces this one to lose none of them."""

TOKEN = "tfos.feed"
"""Prefix of the names that the dataset's ops call by, in every process of a run."""

# TensorFlow's registry holds its functions weakly.
_registered: dict[str, Any] = {}


def serve(service: FeedService, *, token: str = TOKEN) -> None:
    """Let this process answer, by its service, the datasets that `dataset` builds.

    Imports TensorFlow. Call it before the process starts its TensorFlow server. Serving the same
    token again replaces the feeds for datasets iterated from then on.

    Parameters
    ----------
    service
        What answers.
    token
        Name that the datasets call by; the same in every process of a run.

    Raises
    ------
    FeedError
        If this TensorFlow keeps its registry of Python functions elsewhere.
    """
    from tensorflow.python.ops import script_ops

    functions = getattr(getattr(script_ops, "_py_funcs", None), "_funcs", None)
    if functions is None:
        raise FeedError(
            "script_ops._py_funcs._funcs moved: this TensorFlow release is not supported; "
            "use one that the documentation names"
        )
    for name in ("open", "next", "close", "count"):
        key = f"{token}.{name}"
        _registered[key] = functions[key] = getattr(service, name)


def dataset(
    plan: ReadPlan,
    schema: FeedSchema,
    *,
    endless: bool = False,
    tracked: bool = False,
    starts: Mapping[int, FeedPosition] | None = None,
    mapped: Callable[[Any], Any] | None = None,
    token: str = TOKEN,
) -> tf.data.Dataset:
    """Build the dataset of named columns that a plan describes.

    Scalars are [batch] tensors, vectors and stacks [batch, n], lists RaggedTensors, text tf.string.
    Every iterator is a reading of its own from ``plan.start``, in the process that runs the op,
    which must have called `serve`. Works in eager mode, in functions and in TF1 graphs. Building
    does not block; taking an element blocks for rows that Spark has yet to send.

    Parameters
    ----------
    plan
        How to read.
    schema
        The feed's schema.
    endless
        After the end yield batches without rows, one every 20 ms, for ever.
    tracked
        Yield ``(columns, status)``; status is int64 [4]: feed index, epoch, row (both after this
        batch, a `FeedPosition`) and rows of the batch.
    starts
        Where the process of each feed index continues, in place of ``plan.start``: one dataset
        function serves processes that had come to different rows.
    mapped
        What becomes of the columns, in the process that reads them: a function of a dict of
        tensors. It is also given the batches without rows of `endless`.
    token
        As given to `serve`.

    Raises
    ------
    SchemaMismatchError
        If the plan asks for columns that the schema lacks or cannot stack.
    """
    import tensorflow as tf

    transport = Transport(Selection.of(schema, plan))
    asked = ReadingRequest(
        plan=plan,
        schema=schema,
        endless=endless,
        # Those held ready, the one being taken from them, and the one in use.
        ahead=PREFETCH + 2 if tracked else AHEAD,
        starts=starts or {},
    )
    request = wire.to_text(asked)

    def batches(reading: tf.Tensor) -> tf.data.Dataset:
        return _batches(reading, transport, tracked, token)

    found = _readings(request, token).flat_map(tf.autograph.experimental.do_not_convert(batches))
    # A map costs a function call a batch: only a dataset that needs one pays for it.
    if transport.is_ragged:
        found = found.map(tf.autograph.experimental.do_not_convert(_join_ragged))
    if mapped is not None:
        found = found.map(_of_columns(mapped) if tracked else mapped)
    if transport.is_ragged or mapped is not None:
        # Run in parallel, as TensorFlow would on its own, it held as many batches as there are
        # CPUs, of which nobody knows which have been used.
        options = tf.data.Options()
        options.experimental_optimization.map_parallelization = False
        found = found.with_options(options)
    # Where there is none at the end, TensorFlow adds one of a size of its own choosing.
    return found.prefetch(PREFETCH)


def count_rows(name: str, token: str = TOKEN) -> tf.Tensor:
    """Return the rows of a dataset as the process counts them that runs the op; int64 [].

    Blocks there until Spark has sent them all.
    """
    import tensorflow as tf

    (rows,) = tf.raw_ops.PyFunc(input=[tf.constant(name)], token=f"{token}.count", Tout=[tf.int64])
    return tf.reshape(rows, [])


def _readings(request: str, token: str) -> tf.data.Dataset:
    """Return a dataset of one element: the number of a new reading, closed with its iterator.

    A generator dataset is the one public means to run something when an iterator is destroyed.
    """
    import tensorflow as tf

    number = tf.TensorSpec([], tf.int64)

    def call(name: str, argument: tf.Tensor) -> tf.Tensor:
        (result,) = tf.raw_ops.PyFunc(input=[argument], token=f"{token}.{name}", Tout=[tf.int64])
        result.set_shape([])
        return result

    def start() -> tf.Tensor:
        return call("open", tf.constant(request))

    def same(reading: tf.Tensor) -> tf.Tensor:
        return tf.identity(reading)

    def close(reading: tf.Tensor) -> tf.Tensor:
        return call("close", reading)

    variant = tf.raw_ops.GeneratorDataset(
        init_func_other_args=[],
        next_func_other_args=[],
        finalize_func_other_args=[],
        init_func=_traced(start),
        next_func=_traced(same, number),
        finalize_func=_traced(close, number),
        output_types=[number.dtype],
        output_shapes=[number.shape],
    )
    return tf.data.experimental.from_variant(variant, number).take(1)


def _batches(
    reading: tf.Tensor, transport: Transport, tracked: bool, token: str
) -> tf.data.Dataset:
    """Return the batches of an open reading, ragged columns as (values, row_splits)."""
    import tensorflow as tf

    types = [tf.dtypes.as_dtype(dtype) for dtype, _ in transport.arrays]
    parts: list[Any] = [None]

    def following(count: tf.Tensor, reading: tf.Tensor) -> Any:
        arrays = tf.raw_ops.PyFunc(input=[reading], token=f"{token}.next", Tout=types)
        del count
        for array, (_, shape) in zip(arrays, transport.arrays, strict=True):
            array.set_shape(shape)
        columns, status = _columns(arrays, transport.selection)
        whole = (columns, status) if tracked else columns
        parts[0] = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), whole)
        return tf.nest.flatten(whole)

    number = tf.TensorSpec([], tf.int64)
    function = _traced(following, number, number)
    specs = tf.nest.flatten(parts[0])
    endless = tf.data.Dataset.range(tf.int64.max)
    # Dataset.map would run the function in TensorFlow's shared thread pool, where waiting for rows
    # would hold a thread that other ops need; here it runs in the thread that asks for the batch.
    variant = tf.raw_ops.MapDataset(
        input_dataset=tf.data.experimental.to_variant(endless),
        other_arguments=[reading],
        f=function,
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
        use_inter_op_parallelism=False,
        preserve_cardinality=False,
    )
    return tf.data.experimental.from_variant(variant, parts[0])


def _columns(arrays: Sequence[tf.Tensor], chosen: Selection) -> tuple[dict[str, Any], tf.Tensor]:
    """Name the arrays of a transport; one that holds several columns is taken apart."""
    import tensorflow as tf

    left = iter(arrays)
    columns: dict[str, Any] = {}
    for cut in chosen.scalars:
        columns.update(zip(cut.names, tf.unstack(next(left)), strict=True))
    for name, _ in chosen.stacks:
        columns[name] = next(left)
    for _, column in chosen.singles:
        values = next(left)
        columns[column.name] = (values, next(left)) if column.shape == "ragged" else values
    return columns, next(left)


def _of_columns(mapped: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def change(columns: Any, status: Any) -> Any:
        return mapped(columns), status

    return change


def _join_ragged(*element: Any) -> Any:
    """Turn the (values, row_splits) of an element's columns into RaggedTensors."""
    import tensorflow as tf

    columns, *status = element
    whole = {
        name: tf.RaggedTensor.from_row_splits(*column, validate=False)
        if isinstance(column, tuple)
        else column
        for name, column in columns.items()
    }
    return (whole, *status) if status else whole


def _traced(function: Callable[..., Any], *arguments: tf.TensorSpec) -> Any:
    """Return a function's graph; where a TF1 graph is being built, make it known there."""
    import tensorflow as tf

    whole = tf.function(function, input_signature=arguments, autograph=False)
    concrete = whole.get_concrete_function()
    if not tf.executing_eagerly():
        concrete.add_to_graph(tf.compat.v1.get_default_graph())
    return concrete
