"""What a training process has in place of Spark while it imports the application.

There is no Spark in training processes, yet a module of the application may make a session, a UDF
or a column as it is imported, as PySpark scripts do. Those lines are for the driver; here they do
nothing, start nothing and raise nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfos.errors import ConfigError

__all__ = ["StandIn", "spark_stood_in"]

_OPERATORS = (
    *("lt", "le", "gt", "ge", "neg", "invert", "getitem"),
    *("add", "sub", "mul", "truediv", "mod", "pow", "and", "or", "xor"),
    *("radd", "rsub", "rmul", "rtruediv", "rmod", "rpow", "rand", "ror", "rxor"),
)
_depth = 0


@contextmanager
def spark_stood_in() -> Iterator[None]:
    """For the length of the block, have PySpark take a stand-in for its context and session.

    Runs in a training process, in the thread that imports. Imports pyspark, which takes a moment.
    It may be entered again within itself.
    """
    global _depth
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    context: Any = SparkContext
    session: Any = SparkSession
    before = (
        context._active_spark_context,
        context._jvm,
        vars(context)["getOrCreate"],
        session.Builder.getOrCreate,
        vars(session)["_getActiveSessionOrCreate"],
    )
    stand_in = StandIn()
    _depth += 1
    try:
        context._active_spark_context = context._jvm = stand_in
        context.getOrCreate = classmethod(lambda cls, conf=None: stand_in)
        session.Builder.getOrCreate = lambda self: stand_in
        session._getActiveSessionOrCreate = classmethod(lambda cls, **options: stand_in)
        yield
    finally:
        _depth -= 1
        context._active_spark_context, context._jvm, context.getOrCreate = before[:3]
        session.Builder.getOrCreate, session._getActiveSessionOrCreate = before[3:]


class StandIn:
    """Takes whatever is asked of an object of Spark's, and returns itself.

    Outside `spark_stood_in` it raises ConfigError instead.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._take()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Take a call of any method of Spark's."""
        return self._take()

    def __iter__(self) -> Iterator[Any]:
        self._take()
        return iter(())

    def __len__(self) -> int:
        self._take()
        return 0

    def __int__(self) -> int:
        self._take()
        return 0

    __index__ = __int__

    def __float__(self) -> float:
        self._take()
        return 0.0

    def __bool__(self) -> bool:
        return True

    def _parse_ddl(self, text: str) -> Any:
        # Of the kind that PySpark's checks of a function's return type look for.
        from pyspark.sql.types import StringType, StructType

        is_struct = any(sign in text.strip() for sign in (" ", ":", "struct<"))
        return StructType([]) if is_struct else StringType()

    def _take(self, *_: Any) -> Any:
        if _depth == 0:
            raise ConfigError(
                "train uses an object of Spark's, such as a session or a UDF: Spark is on the "
                "driver alone; use it in pre_train, and keep what train needs of it on self"
            )
        return self


for _name in _OPERATORS:
    setattr(StandIn, f"__{_name}__", StandIn._take)
