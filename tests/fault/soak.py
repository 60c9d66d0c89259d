"""Train the MovieLens example for half an hour under random faults; compare with a quiet run.

    python tests/fault/soak.py --minutes 30
    python tests/fault/soak.py --arch ring --minutes 8 --every 15 25

Every 20 to 40 seconds something is killed or stopped: a training process, a role host, an executor.
At the end the RMSE must be within 0.01 of a run that nothing disturbed, and every rating must have
been used in every epoch. Prints each fault and each recovery; exits with 1 if that does not hold.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click
import psutil

from tfos.testing import DrillCluster, DrillRun

APP = Path(__file__).parent / "apps" / "soak_job.py"
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fm_movielens"
EPOCHS, BATCH_SIZE, WORKERS = 30, 256, 2
STEPS = EPOCHS * 80_000 // BATCH_SIZE
SETTINGS = """\
checkpoints: {every_s: 5}
supervision: {heartbeat_timeout_s: 5, restart_window_s: 60}
"""
_ROLE = re.compile(r"-((?:chief|worker|ps)-\d+)-\d+-[0-9a-f]+-host$")


def training_processes(cluster: DrillCluster) -> dict[str, psutil.Process]:
    """Return the process that trains, or serves, at each role; not those that stand by."""
    found: dict[str, tuple[int, psutil.Process]] = {}
    for process in cluster.processes():
        try:
            directory = Path(process.cwd())
            if "tfos.launcher.training.main" not in process.cmdline():
                continue
        except psutil.Error:
            continue
        role = _ROLE.search(directory.parent.name)
        number = int(directory.name.partition("-")[2] or 0)
        if role and (role[1] not in found or number < found[role[1]][0]):
            found[role[1]] = (number, process)
    return {role: process for role, (_, process) in found.items()}


def disturb(cluster: DrillCluster, draw: random.Random) -> str:
    """Cause one fault; return what it was."""
    roles = training_processes(cluster)
    if not roles:
        return "nothing runs"
    role = draw.choice(sorted(roles))
    process = roles[role]
    kind = draw.choices(["kill", "stop", "kill host", "kill executor"], [60, 15, 15, 10])[0]
    try:
        if kind == "kill":
            process.kill()
        elif kind == "stop":
            process.send_signal(signal.SIGSTOP)
        elif kind == "kill host":
            process.parent().kill()
        else:
            next(p for p in process.parents() if "java" in p.name()).kill()
    except (psutil.Error, AttributeError, StopIteration) as error:
        return f"{kind} {role} came too late ({type(error).__name__})"
    return f"{kind} {role}"


def run(
    directory: Path,
    data: Path,
    arch: str,
    disturbed_s: float,
    every_s: tuple[float, float],
    draw: random.Random,
) -> DrillRun:
    """Train once, with faults for `disturbed_s` seconds."""
    directory.mkdir()
    settings = directory / "soak.yaml"
    settings.write_text(SETTINGS)
    # Under `ps` the workers take steps side by side, under `ring` one together.
    abreast = WORKERS if arch == "ps" else 1
    slow = 0.0 if disturbed_s == 0 else abreast * disturbed_s / STEPS
    with DrillCluster(
        directory, master="local-cluster[4,1,1024]", limit_s=3 * disturbed_s + 900
    ) as cluster:
        process = cluster.start(
            APP,
            *("--arch", arch, "--num-ps", "1", "--num-workers", str(WORKERS)),
            *("--max-restarts", "1000", "--conf", str(settings)),
            *("--checkpoint-dir", str(directory / "checkpoints")),
            *("-p", f"data={data}", "-p", f"slow={slow}"),
            *("-p", f"epochs={EPOCHS}", "-p", f"batch_size={BATCH_SIZE}"),
            env={"PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(ROOT)])},
        )
        ended: list[DrillRun] = []
        waiting = threading.Thread(target=lambda: ended.append(cluster.finish(process)))
        waiting.start()
        until = time.monotonic() + disturbed_s
        while waiting.is_alive() and disturbed_s:
            waiting.join(draw.uniform(*every_s))
            if time.monotonic() > until or not waiting.is_alive():
                break
            print(f"{time.strftime('%H:%M:%S')} {disturb(cluster, draw)}", flush=True)
        waiting.join()
        cluster.assert_nothing_left()
        return ended[0]


def told(name: str, run: DrillRun) -> dict[str, float]:
    """Print how a run ended; return what its job returned."""
    result = run.record.get("result") or {}
    print(f"{name}: exit code {run.code}, {run.seconds:.0f} s, {result}")
    if run.code:
        print(run.text[-6000:])
    return result


def recoveries(run: DrillRun) -> Sequence[float]:
    """Print what restarts answered; return how long each took."""
    for incident in run.record["incidents"]:
        cause = incident["failures"][0]
        print(
            f"  {incident['reaction']:15} step {incident['step']:6} {incident['recovered_s']} s  "
            f"{cause['key']}: {cause['message'][:100]}"
        )
    return [i["recovered_s"] for i in run.record["incidents"] if i["recovered_s"] is not None]


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="How long faults are caused.")
@click.option("--arch", type=click.Choice(["ps", "ring"]), default="ps", show_default=True)
@click.option(
    *("--every", "every_s"),
    type=(float, float),
    default=(20, 40),
    show_default=True,
    help="Least and most seconds between faults.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the faults.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    default=ROOT / ".cache" / "ml-100k",
    help="MovieLens 100K; `make data` fetches it.",
)
def main(minutes: float, arch: str, every_s: tuple[float, float], seed: int, data: Path) -> None:
    """Train under random faults and compare with a run that nothing disturbed."""
    with tempfile.TemporaryDirectory(prefix="tfos-soak-") as scratch:
        given, draw = (data, arch), random.Random(seed)
        quiet = told("quiet", run(Path(scratch) / "quiet", *given, 0, every_s, draw))
        run_ = run(Path(scratch) / "disturbed", *given, 60 * minutes, every_s, draw)
        disturbed = told("disturbed", run_)
    took = recoveries(run_)
    print(
        f"{len(run_.record['incidents'])} restarts; recovery median {median(took):.1f} s, longest "
        f"{max(took):.1f} s; RMSE {disturbed['rmse']:.4f} against {quiet['rmse']:.4f}; each rating "
        f"used {disturbed['least']} to {disturbed['most']} times in {EPOCHS} epochs "
        f"(mean {disturbed['mean']:.2f})"
    )
    good = abs(disturbed["rmse"] - quiet["rmse"]) <= 0.01 and disturbed["least"] >= EPOCHS
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
