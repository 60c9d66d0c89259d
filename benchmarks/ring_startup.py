"""Measure how long two ranks take to reduce their first number: tfos beside horovod.spark.run.

    python benchmarks/ring_startup.py --rounds 3

Each round runs both, one after the other: the seconds from the command to the first allreduce, and
for tfos how they are spent. horovod.spark.run is given the same Horovod, the same
TensorFlow and the same number of slots.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

APPS = Path(__file__).resolve().parent / "apps"
PARTS = ("Spark", "registration", "import", "ring", "reduce")


def with_tfos(directory: Path) -> dict[str, float]:
    """Run the job once; return the seconds of each part, and of all."""
    record = directory / "record.json"
    command = [str(Path(sys.executable).with_name("pl_submit")), "--arch", "ring"]
    command += ["--num-workers", "2", "--result-json", str(record)]
    began = time.time()
    run_quietly([*command, str(APPS / "first_reduce.py")], directory)
    told = json.loads(record.read_text())
    assert told["result"]["total"] == 2.0
    phases = told["phases"]

    def last(name: str) -> float:
        return max(at for phase, at in phases.items() if phase.endswith(f".{name}"))

    # Processes import TensorFlow while roles still register: what is left of it counts.
    points = [began, phases["pre_train"], phases["registered"]]
    points += [max(last("begun"), points[-1]), last("connected"), told["result"]["at"]]
    parts = [later - earlier for earlier, later in itertools.pairwise(points)]
    return {**dict(zip(PARTS, parts, strict=True)), "all": points[-1] - began}


def with_horovod_on_spark(directory: Path) -> dict[str, float]:
    """Run the same by horovod.spark.run; return the seconds of Spark's start, and of all."""
    submit = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]"]
    began = time.time()
    said = run_quietly([*submit, str(APPS / "first_reduce_on_spark.py")], directory)
    line = next(line for line in said.splitlines() if line.startswith("first_reduce "))
    started, reduced = map(float, line.split()[1:])
    return {"Spark": started - began, "all": reduced - began}


def run_quietly(command: list[str], directory: Path) -> str:
    """Run a command; return what it printed."""
    environment = {
        **os.environ,
        "TFOS_CONF_DIR": str(directory),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often both are run.")
def main(rounds: int) -> None:
    """Measure the start of a ring."""
    ratios = []
    with tempfile.TemporaryDirectory(prefix="tfos-bench-") as scratch:
        for _ in range(rounds):
            ours, theirs = with_tfos(Path(scratch)), with_horovod_on_spark(Path(scratch))
            parts = "  ".join(f"{name} {ours[name]:.1f}" for name in PARTS)
            ratios.append(ours["all"] / theirs["all"])
            print(
                f"tfos {ours['all']:5.1f} s ({parts})   horovod.spark.run {theirs['all']:5.1f} s "
                f"(Spark {theirs['Spark']:.1f})   ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {median(ratios):.2f}")


if __name__ == "__main__":
    main()
