"""Measure what checkpoints cost: steps per second of the MovieLens example with and without them.

    python benchmarks/checkpoint_cost.py --pairs 3

Each pair runs the same job twice, one after the other, without checkpoints and with one every 10 s
(`local`, one process). Prints steps per second of both, and their ratio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "examples" / "fm_movielens" / "fm.py"


def steps_per_s(directory: Path, data: Path, epochs: int, *options: str) -> float:
    """Run the example once; return its steps per second from the first step to the last."""
    record = directory / "record.json"
    command = [str(Path(sys.executable).with_name("pl_submit")), "--result-json", str(record)]
    command += ["-p", f"data={data}", "-p", f"epochs={epochs}", *options, str(APP)]
    subprocess.run(
        command,
        check=True,
        cwd=directory,
        env={**os.environ, "TFOS_CONF_DIR": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = json.loads(record.read_text())
    phases = told["phases"]
    return float(told["steps"]) / (phases["chief-0.ended"] - phases["chief-0.stepping"])


@click.command()
@click.option("--pairs", default=3, show_default=True, help="How often both are run.")
@click.option("--epochs", default=300, show_default=True, help="Length of a run.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    default=ROOT / ".cache" / "ml-100k",
    help="MovieLens 100K; `make data` fetches it.",
)
def main(pairs: int, epochs: int, data: Path) -> None:
    """Measure what checkpoints cost."""
    ratios = []
    with tempfile.TemporaryDirectory(prefix="tfos-bench-") as scratch:
        directory = Path(scratch)
        settings = directory / "every-10-s"
        settings.write_text("checkpoints: {every_s: 10}")
        for pair in range(pairs):
            without = steps_per_s(directory, data, epochs)
            kept = str(directory / f"checkpoints-{pair}")
            options = ("--checkpoint-dir", kept, "--conf", str(settings))
            with_them = steps_per_s(directory, data, epochs, *options)
            ratios.append(with_them / without)
            print(f"without {without:7.1f} steps/s  with {with_them:7.1f}  ratio {ratios[-1]:.3f}")
    print(f"median ratio {median(ratios):.3f}")


if __name__ == "__main__":
    main()
