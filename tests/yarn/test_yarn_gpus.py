"""Which role sees which GPUs: YARN counts them, Spark deals them out as a script finds them."""

from __future__ import annotations

import pytest
from support.yarn_runs import COUNTED, RING

from tfos.errors import ExitCode
from tfos.testing.yarn.web import ask

# Two devices, the first with the number of the container, which tells executors of one host apart.
SCRIPT = r"""#!/bin/sh
echo "{\"name\": \"gpu\", \"addresses\": [\"$((1${CONTAINER_ID##*_} - 1000000))\", \"7\"]}"
"""
SIZES = {
    "ps": (
        *("--arch", "ps", "--num-workers", "2", "--worker-memory", "2g", "--ps-memory", "1536m"),
        *("--chief-memory", "1792m", "-p", "rows=1000", "-p", "epochs=4", "-p", "slow=0.1"),
    ),
    "ring": ("--arch", "ring", "--worker-memory", "2g", "-p", "ranks=2"),
}


def visible(submit) -> dict[str, str]:
    """Return what each role's training process sees; the container's own GPU as "own"."""
    found = {}
    for each in submit.training():
        number = each.environ["CONTAINER_ID"].rpartition("_")[2].lstrip("0")
        seen = each.environ.get("CUDA_VISIBLE_DEVICES", "all")
        found[each.role] = "own" if seen == number else seen
    return found


def dealt(submit) -> int:
    """Return how many GPUs YARN has given to containers."""
    nodes = ask(f"{submit.yarn.record.manager}/ws/v1/cluster/nodes")["nodes"]["node"]
    return sum(
        int(each["value"])
        for node in nodes
        for each in node["usedResource"]["resourceInformations"]["resourceInformation"]
        if each["name"] == "yarn.io/gpu"
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("arch", "app", "seen"),
    [
        ("ps", COUNTED, {"chief-0": "", "ps-0": "", "worker-0": "own", "worker-1": "own"}),
        pytest.param(
            *("ring", RING, {"worker-0": "own", "worker-1": "own"}), marks=pytest.mark.faults
        ),
    ],
)
def test_workers_see_the_gpus_they_were_given_and_others_none(submit, tmp_path, arch, app, seen):
    script = tmp_path / "gpus.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    found = ("--files", str(script))
    found += ("--spark-conf", "spark.executor.resource.gpu.discoveryScript=./gpus.sh")
    process = submit.start(*SIZES[arch], "--worker-gpus", "1", *found, app)

    def all_visible() -> dict[str, str] | None:
        found = visible(submit)
        return found if set(found) == set(seen) else None

    assert submit.wait_for(all_visible, 150.0) == seen
    assert dealt(submit) == 2
    assert submit.finish(process).code == ExitCode.OK


def test_gpus_that_nobody_finds_are_refused(submit):
    run = submit(*SIZES["ps"], "--worker-gpus", "1", COUNTED)
    assert run.code == ExitCode.CONFIG
    assert "spark.executor.resource.gpu.discoveryScript" in run.record["error"]
