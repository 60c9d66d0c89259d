"""Archive the classes that Spark's JVMs load, for the many that the tests start.

``python tests/support/spark_classes.py FILE`` runs a small application on executors and in one
process and has its JVM write them. Such a JVM loads in half the CPU time (class data sharing); one
with other jars, or another Java, passes the archive over.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tfos.java import QUICK_JVM

__all__ = ["jvm_options"]

_QUIET = "-Xlog:disable"
_WRITTEN_WITHIN_S = 180.0


def jvm_options(archive: Path) -> list[str]:
    """Return the options by which a JVM uses the archive."""
    # What is said of an archive that does not fit goes to standard output, which programs read.
    return [f"-XX:SharedArchiveFile={archive}", _QUIET] if archive.exists() else []


def _write(archive: Path) -> None:
    import pyspark
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    part = archive.with_suffix(".part")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["JAVA_TOOL_OPTIONS"] = " ".join(QUICK_JVM)
    os.environ["SPARK_SUBMIT_OPTS"] = f"-XX:ArchiveClassesAtExit={part} {_QUIET}"
    for master in ("local-cluster[1,1,1024]", "local[2]"):
        spark = SparkSession.builder.master(master).config("spark.ui.enabled", False).getOrCreate()
        rows = spark.range(100, numPartitions=2)
        rows.selectExpr("id", "id % 7 as key").groupBy("key").sum("id").collect()
        rows.mapInArrow(lambda batches: batches, "id long").count()
        work = Path(pyspark.__file__).with_name("work") / spark.sparkContext.applicationId
        spark.stop()
        shutil.rmtree(work, ignore_errors=True)  # of executors: nothing else clears it
    jvm = SparkContext._gateway.proc
    SparkContext._gateway.shutdown()
    jvm.stdin.close()
    jvm.wait(_WRITTEN_WITHIN_S)
    part.replace(archive)


if __name__ == "__main__":
    _write(Path(sys.argv[1]).resolve())
