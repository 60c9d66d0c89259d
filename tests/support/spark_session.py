"""A Spark session for the tests of one module."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def spark_session(module: str, master: str, properties: Mapping[str, str]) -> Iterator[Any]:
    """Start one that can run the functions of a test module.

    Parameters
    ----------
    module
        Name of the test module, which workers cannot import.
    master
        Spark master.
    properties
        Further Spark properties.
    """
    from pyspark import cloudpickle
    from pyspark.sql import SparkSession

    cloudpickle.register_pickle_by_value(sys.modules[module])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.master(master).appName(f"tfos-{module}")
        given = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "3", **properties}
        for name, value in given.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()
