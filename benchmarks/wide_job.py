"""One whole job over a wide table: when training starts, what memory each role takes, how fast.

    python benchmarks/wide_job.py [--rows 5000000] [--epochs 2] [--stack]

Prints figures; beside the job runs a bare mapInArrow over the same table, for the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def bare_map_in_arrow(rows: int) -> float:
    """Return rows/s of a mapInArrow that drops its batches, one task, second run."""
    program = f"""
import sys, time
sys.path.insert(0, {str(HERE / "apps")!r})
from pyspark.sql import SparkSession
from wide import wide_table
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
         .config("spark.sql.execution.arrow.maxRecordsPerBatch", "4096").getOrCreate())
spark.sparkContext.setLogLevel("ERROR")
def drop(batches):
    import pyarrow as pa
    rows = 0
    for batch in batches:
        rows += batch.num_rows
    yield pa.RecordBatch.from_pydict({{"rows": [rows]}})
for _ in range(2):
    started = time.monotonic()
    table = wide_table(spark, {rows}, 8).coalesce(1)
    assert table.mapInArrow(drop, "rows long").collect()[0].rows == {rows}
    took = time.monotonic() - started
print({rows} / took)
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(found.stdout.split()[-1])


def job(rows: int, epochs: int, stack: bool) -> dict:
    """Run the job through pl_submit and return its record."""
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "result.json"
        arguments = ["-p", f"rows={rows}", "-p", f"epochs={epochs}"]
        arguments += ["-p", "stack=1"] if stack else []
        command = [str(Path(sys.executable).with_name("pl_submit")), "--result-json", str(record)]
        subprocess.run([*command, *arguments, str(HERE / "apps" / "wide.py")], check=True)
        return json.loads(record.read_text())


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--stack", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    bare = bare_map_in_arrow(options.rows)
    record = job(options.rows, options.epochs, options.stack)
    result, phases = record["result"], record["phases"]
    fed = phases["chief-0.feed_ended"] - phases["chief-0.feed_started"]
    early = phases["chief-0.feed_ended"] - result["first_batch"]
    starts = [result["first_batch"], *result["epoch_ends"][:-1]]
    rates = [options.rows / (e - s) for s, e in zip(starts, result["epoch_ends"], strict=True)]
    print(f"rows                          {options.rows:>12,} x 40 columns, batch 1024")
    print(f"bare mapInArrow               {bare:>12,.0f} rows/s")
    print(f"DataFrame into the spool      {options.rows / fed:>12,.0f} rows/s")
    print(f"  ratio to bare               {options.rows / fed / bare:>12.2f}")
    print(f"first batch before feed's end {early:>12.1f} s")
    for number, rate in enumerate(rates, 1):
        print(f"epoch {number}                       {rate:>12,.0f} rows/s in the training process")
    print(f"peak memory, training process {result['training_peak_mb']:>12,} MB")
    print(f"peak memory, role host        {result['host_peak_mb']:>12,} MB")
    print(f"in all                        {time.monotonic() - started:>12.1f} s")


if __name__ == "__main__":
    main()
