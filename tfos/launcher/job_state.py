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
from tfos.fault.error_text import headline
from tfos.frameworks.keras import check_keras_class

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
        If a class of a notebook derives from the other Keras.
    """
    written = io.BytesIO()
    pickler = _JobPickler(written, job, keras)
    try:
        pickler.dump(job)
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
    """Notes the source of what is pickled by value, and leaves ``pre_train`` out.

    Attributes
    ----------
    sources
        Text by file name.
    """

    def __init__(self, file: io.BytesIO, job: Job, keras: int) -> None:
        super().__init__(file)
        self._keras = keras
        self.sources: dict[str, str] = {}
        # The driver's alone: what it mentions, such as a UDF or a session, need not be pickled.
        self._left_out = [vars(c)["pre_train"] for c in type(job).__mro__ if "pre_train" in vars(c)]

    def reducer_override(self, obj: Any) -> Any:
        if any(obj is method for method in self._left_out):
            return getattr, (Job, "pre_train")
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented:
            return reduced
        if isinstance(obj, type):
            check_keras_class(obj, self._keras)
        elif isinstance(obj, FunctionType):
            filename = obj.__code__.co_filename
            if filename not in self.sources and (lines := linecache.getlines(filename)):
                self.sources[filename] = "".join(lines)
        return reduced


def _picklable(value: object) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
