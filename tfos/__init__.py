"""Train TensorFlow as an ordinary PySpark job.

Subclass `Job`, return a DataFrame from ``pre_train``, write TensorFlow in ``train``, and submit
with ``pl_submit``; or call `run` from a notebook. Importing this package loads none of
TensorFlow, PySpark, kazoo and Horovod.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfos.base import Job, TrainContext
    from tfos.config import JobConfig
    from tfos.errors import TfosError
    from tfos.launcher.driver.run import run
    from tfos.launcher.handover.result import RunResult
    from tfos.read_plan import FeedPosition, ReadPlan
    from tfos.training_parts import FitResult

__version__ = "0.1.0"

__all__ = [
    "FeedPosition",
    "FitResult",
    "Job",
    "JobConfig",
    "ReadPlan",
    "RunResult",
    "TfosError",
    "TrainContext",
    "__version__",
    "run",
]

_HOMES = {
    "FeedPosition": "tfos.read_plan",
    "FitResult": "tfos.training_parts",
    "Job": "tfos.base",
    "JobConfig": "tfos.config",
    "ReadPlan": "tfos.read_plan",
    "RunResult": "tfos.launcher.handover.result",
    "TfosError": "tfos.errors",
    "TrainContext": "tfos.base",
    "run": "tfos.launcher.driver.run",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: a training process needs no pydantic, a submit no pyspark.
    if name not in _HOMES:
        raise AttributeError(f"module 'tfos' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
