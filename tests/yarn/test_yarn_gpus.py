"""Which role sees which GPUs: YARN counts them, Spark deals them out as a script finds them."""

from __future__ import annotations

import os
import re

import pytest
from support.yarn_runs import COUNTED, PS_SIZES, RING

from tfos.errors import ExitCode
from tfos.testing.yarn.web import ask

# Two devices, the first with the number of the container, which tells executors of one host apart.
SCRIPT = r"""#!/bin/sh
echo "{\"name\": \"gpu\", \"addresses\": [\"$((1${CONTAINER_ID##*_} - 1000000))\", \"7\"]}"
"""
PS = (
    *("--arch", "ps", "--num-workers", "2", "--worker-gpus", "1", *PS_SIZES),
    *("-p", "rows=2000", "-p", "epochs=4", "-p", "slow=0.02"),
)
RING_OF_TWO = (
    *("--arch", "ring", "--num-workers", "2", "--worker-gpus", "1", "--worker-memory", "2g"),
    *("-p", "ranks=2"),
)

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def found(tmp_path) -> tuple[str, ...]:
    """The options by which an executor finds its GPUs."""
    script = tmp_path / "gpus.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    by_script = "spark.executor.resource.gpu.discoveryScript=./gpus.sh"
    return ("--files", str(script), "--spark-conf", by_script)


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


def all_seen(submit, roles: int) -> dict[str, str]:
    """Return what each role sees, once all have a training process."""
    return submit.wait_for(lambda: seen if len(seen := visible(submit)) == roles else None, 150.0)


def test_roles_have_containers_of_their_sizes_and_workers_their_gpus(submit, found):
    kept = f"{submit.yarn.record.hdfs}/kept/sizes"
    process = submit.start(*PS, *found, "--name", "sizes", "--checkpoint-dir", kept, COUNTED)

    def sizes():
        used = submit.yarn.containers()
        return {(int(c["totalMemoryNeededMB"]), int(c["totalVCoresNeeded"])) for c in used}

    submit.wait_for(lambda: sizes() >= {(1536, 1), (2048, 2), (1792, 1)})
    seen = {"chief-0": "", "ps-0": "", "worker-0": "own", "worker-1": "own"}
    assert all_seen(submit, 4) == seen
    assert dealt(submit) == 2
    for each in submit.training():
        name = rf"tfos-[^/]*-{each.role}-0-[0-9a-f]+-host/process-\d+"
        assert re.search(rf"/{each.environ['CONTAINER_ID']}/{name}$", each.directory)
        assert os.path.realpath(each.environ["TMPDIR"]) == f"{each.directory}/tmp"
    run = submit.finish(process)
    assert run.code == ExitCode.OK
    result = run.record["result"]
    assert (result["step"], result["fewest"], result["most"]) == (160, 4, 4)
    assert run.record["checkpoint"].startswith(f"{kept}/sizes/")


@pytest.mark.faults
def test_ranks_see_the_gpus_they_were_given(submit, found):
    process = submit.start(*RING_OF_TWO, *found, RING)
    assert all_seen(submit, 2) == {"worker-0": "own", "worker-1": "own"}
    assert dealt(submit) == 2
    assert submit.finish(process).code == ExitCode.OK


def test_gpus_that_nobody_finds_are_refused(submit):
    run = submit(*PS, COUNTED)
    assert run.code == ExitCode.CONFIG
    assert "spark.executor.resource.gpu.discoveryScript" in run.record["error"]
