"""Kill what runs on YARN, and see the run go on."""

from __future__ import annotations

import contextlib
import signal
import subprocess

import psutil
import pytest
from support.fault_table import FaultTable, seconds
from support.yarn_runs import COUNTED, FAULTS

from tfos.errors import ExitCode
from tfos.testing import DrillRun

pytestmark = pytest.mark.timeout(400)

ROWS, EPOCHS = 4000, 6
ROLES = (
    *("--arch", "ps", "--num-workers", "2", "--chief-memory", "1792m", "--chief-cores", "1"),
    *("--ps-memory", "1536m", "--ps-cores", "1", "--worker-memory", "2g", "--worker-cores", "1"),
    *("-p", f"rows={ROWS}", "-p", f"epochs={EPOCHS}", "-p", "slow=0.1"),
)


def executors(submit, role: str) -> list[psutil.Process]:
    """Return the JVMs whose training processes play a role."""
    players = [each.process for each in submit.training() if each.role.startswith(role)]
    above = [parent for player in players for parent in player.parents()]
    return [process for process in above if process in jvms(submit, "Executor")]


def jvms(submit, of: str) -> list[psutil.Process]:
    found = []
    for process in submit.yarn.record.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.name() == "java" and of in " ".join(process.cmdline()):
                found.append(process)
    return found


def has_checkpoint(submit, kept: str) -> bool:
    submit.hdfs.invalidate_cache()
    path = kept.removeprefix(submit.yarn.record.hdfs)
    return submit.hdfs.exists(path) and any(
        each.endswith("/COMMITTED") and ".staging-" not in each for each in submit.hdfs.find(path)
    )


def trained_on(submit, process: subprocess.Popen[str]) -> DrillRun:
    run = submit.finish(process)
    assert run.code == ExitCode.OK
    found = run.record["result"]
    # Of a generation that was on its way when training ended, nobody takes another step.
    assert found["step"] >= EPOCHS * ROWS // 50
    # At least once: rows after the checkpoint are used again.
    assert found["fewest"] >= EPOCHS
    return run


def keep(table: FaultTable | None, name: str, run: DrillRun) -> None:
    """Put what was seen into the documents' table."""
    first = next(iter(run.record["incidents"]), None)
    print(name, first)
    answer = "next attempt resumes" if first is None else first["reaction"].replace("_", " ")
    recovered_s = None if first is None else first["recovered_s"]
    replayed = run.record["result"]["seen"] - ROWS * EPOCHS
    if table is not None:
        table.put(name, answer, "", seconds(recovered_s), str(replayed), f"{run.seconds:.0f} s")


@pytest.fixture
def started(submit, tmp_path):
    settings = tmp_path / "as-users-have-it.yaml"
    settings.write_text("{checkpoints: {every_s: 2}, supervision: {standby: true}}")

    def start(name: str, *options: str) -> tuple[subprocess.Popen[str], str]:
        kept = f"{submit.yarn.record.hdfs}/kept/{name}"
        again = ("--name", name, "--checkpoint-dir", kept, "--conf", str(settings))
        process = submit.start(*ROLES, *options, *again, COUNTED)
        submit.wait_for(lambda: has_checkpoint(submit, f"{kept}/{name}"), 200.0)
        return process, name

    return start


@pytest.mark.faults
@pytest.mark.parametrize("role", ["worker", "ps"])
def test_a_killed_container_is_replaced(submit, started, table, role):
    process, _ = started(f"lost-{role}")
    executors(submit, role)[0].send_signal(signal.SIGKILL)
    run = trained_on(submit, process)
    assert [incident["reaction"] for incident in run.record["incidents"]] == ["new_generation"]
    keep(table, f"yarn-{role}-container-kill", run)


@pytest.mark.faults
@pytest.mark.zookeeper
def test_a_killed_application_master_resumes(submit, started, table):
    # Once: the attempt after the first must find what was saved since.
    process, _ = started("lost-master", "--deploy-mode", "cluster", "--fresh")
    (master,) = jvms(submit, "deploy.yarn.ApplicationMaster")
    master.send_signal(signal.SIGKILL)
    run = trained_on(submit, process)
    assert run.record["resumed_from"]
    assert run.record["result"]["resumed_from"] > 0
    keep(table, "yarn-application-master-kill", run)


@pytest.mark.faults
@pytest.mark.zookeeper
def test_a_driver_lost_for_good_leaves_nothing_in_zookeeper(submit, started):
    process, _ = started(
        *("lost-for-good", "--deploy-mode", "cluster"),
        *("--spark-conf", "spark.yarn.maxAppAttempts=1"),
    )
    (master,) = jvms(submit, "deploy.yarn.ApplicationMaster")
    # All of the container: a driver that only loses its JVM still removes its nodes itself.
    for each in [*master.children(recursive=True), master]:
        each.send_signal(signal.SIGKILL)
    run = submit.finish(process)
    assert run.code == ExitCode.INFRASTRUCTURE
    assert "without a record" in run.text


@pytest.mark.faults
def test_a_lost_node_manager_costs_its_containers_at_most(submit, started, table):
    # Training must not be over before YARN gives the node up, 30 s to 40 s later.
    process, _ = started("lost-node", "-p", "slow=0.3")
    submit.yarn.kill_node_manager(1)
    try:
        keep(table, "yarn-node-manager-kill", trained_on(submit, process))
    finally:
        submit.yarn.start_node_manager(1)


def test_a_container_over_its_memory_is_told(submit):
    run = submit("--chief-memory", "1280m", "-p", "fault=eats", *FAULTS)
    assert run.code == ExitCode.RESOURCES
    assert "chief-0 used more memory than its container has, and was killed" in run.text
    assert "raise --chief-memory" in run.text
    assert "/node/containerlogs/container_" in run.record["failures"][0]["logs"]
