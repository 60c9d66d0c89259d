"""The Job's attributes on their way from the driver to the training processes.

Classes and functions of modules travel by name: every process imports the application. What is
defined in ``__main__``, a notebook's cells or a driver script, travels by value, with its source.
"""

from __future__ import annotations

import io
import linecache
import pickle
from types import FunctionType
from typing import Any

import cloudpickle

from tfos.base import Job
from tfos.errors import ConfigError, JobDefinitionError
from tfos.fault.failures.error_text import headline
from tfos.frameworks.tensorflow.keras import check_same_keras
from tfos.launcher.application.spark_stand_in import StandIn

__all__ = ["pickle_job", "unpickle_job"]


def pickle_job(job: Job, keras: int) -> bytes:
    """Pickle the Job for `unpickle_job`. Runs on the driver.

    Parameters
    ----------
    keras
        The Keras of the training processes: 2 or 3.

    Raises
    ------
    JobDefinitionError
        If an attribute cannot be pickled; says which.
    ConfigError
        If a notebook uses the other Keras.
    """
    written = io.BytesIO()
    pickler = _JobPickler(written, job, keras)
    try:
        pickler.dump(job)
        if pickler.left_spark_out:
            # Code that is for the driver may mention it; what is sent must not be of it.
            cloudpickle.dumps(vars(job))
    except ConfigError:
        raise
    except Exception as error:
        culprits = [n for n, v in vars(job).items() if not _picklable(v)]
        what = f"its attribute {culprits[0]!r}" if culprits else "it"
        raise JobDefinitionError(
            f"{type(job).__name__} cannot be sent to the training processes: {what} "
            f"cannot be pickled ({headline(error)}); do not keep Spark objects, files or locks "
            "on the Job"
        ) from error
    return pickle.dumps((pickler.sources, written.getvalue()))


def unpickle_job(data: bytes) -> Job:
    """Return the Job; runs in a training process, where it imports the application's modules.

    Whatever their code raises goes through.

    Raises
    ------
    ConfigError
        If the object is no Job.
    """
    sources, state = pickle.loads(data)
    for filename, source in sources.items():
        keep_source(filename, source)
    job = cloudpickle.loads(state)
    if not isinstance(job, Job):
        raise ConfigError(f"the submitted object is a {type(job).__name__}, not a tfos.Job")
    return job


def keep_source(filename: str, source: str) -> None:
    """Have tracebacks and `inspect.getsource` see `source` as the file's, whatever is there."""
    # Without a time of modification the entry is never compared with a file.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)


class _JobPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Leaves out what is the driver's of a notebook: ``pre_train``, and Spark's objects.

    Attributes
    ----------
    sources
        The source of what is pickled by value: text by file name.
    left_spark_out
        Whether there was an object of Spark's.
    """

    def __init__(self, file: io.BytesIO, job: Job, keras: int) -> None:
        super().__init__(file)
        self._keras = keras
        self.left_spark_out = False
        self._in_notebook = type(job).__module__ == "__main__"
        self.sources: dict[str, str] = {}
        self._left_out = [vars(c)["pre_train"] for c in type(job).__mro__ if "pre_train" in vars(c)]

    def reducer_override(self, obj: Any) -> Any:
        if any(obj is method for method in self._left_out):
            return getattr, (Job, "pre_train")
        if self._in_notebook:
            # Elsewhere the training process imports the module with the Keras that it has.
            check_same_keras(obj, self._keras)
            if _is_of_spark(obj):
                self.left_spark_out = True
                return StandIn, ()
        reduced = super().reducer_override(obj)
        if reduced is not NotImplemented and isinstance(obj, FunctionType):
            filename = obj.__code__.co_filename
            if filename not in self.sources and (lines := linecache.getlines(filename)):
                self.sources[filename] = "".join(lines)
        return reduced


def _is_of_spark(obj: object) -> bool:
    """Whether it lives in the JVM, or holds what does and cannot be pickled."""
    module = type(obj).__module__
    return module.startswith("py4j.") or module in ("pyspark.core.context", "pyspark.sql.session")


def _picklable(value: object) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
