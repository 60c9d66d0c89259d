"""The daemon from which Spark forks its Python workers, with what role hosts import in it already.

For masters on this machine, whose Python has tfos for certain: every role host forks from one
daemon there, and would import the same for 1 s of CPU time each (measured).
"""

from __future__ import annotations

import gc
import importlib

__all__ = ["main"]

_IMPORTED = (
    "pyarrow",
    "pandas",
    "pyspark.sql.pandas.serializers",
    "tfos.launcher.role.host",
    "tfos.registry.zookeeper",
)


def main() -> None:
    """Import, and be Spark's daemon."""
    for name in _IMPORTED:
        importlib.import_module(name)
    # What the collector does not touch stays shared with the workers.
    gc.freeze()
    from pyspark.daemon import manager

    manager()


if __name__ == "__main__":
    main()
