"""Whole runs, with the driver here and in the cluster."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from support.yarn_runs import CLUSTER, COUNTED_SESSION, FAULTS, FAULTY, PS_SIZES

from tfos.errors import ExitCode
from tfos.launcher.platform.yarn_client import YarnClient

# Some tests run three jobs.
pytestmark = pytest.mark.timeout(400)

# More ranks than the cluster has room for: it gives one or two executors.
SPREAD = ("--arch", "ring", "--num-workers", "4", "--worker-memory", "8g", "-p", "fault=none")


@pytest.mark.faults
def test_between_graph_programs_keep_a_checkpoint_in_the_cluster(submit):
    kept = f"{submit.yarn.record.hdfs}/kept/session"
    counts = ("-p", "rows=2000", "-p", "epochs=2", "-p", "slow=0.02")
    sizes = (*PS_SIZES, "--name", "session", "--checkpoint-dir", kept)
    run = submit("--arch", "session", *sizes, *counts, COUNTED_SESSION)
    assert run.code == ExitCode.OK
    found = run.record["result"]
    assert (found["step"], found["fewest"], found["most"]) == (80, 2, 2)
    assert run.record["checkpoint"].startswith(f"{kept}/session/")


@pytest.mark.parametrize("mode", [pytest.param("client", marks=pytest.mark.faults), "cluster"])
def test_errors_of_the_user_keep_their_exit_code(submit, mode):
    where = ("--deploy-mode", mode, "--chief-memory", "1280m")
    name = ("--name", f"raises-{mode}")
    run = submit(*where, *name, "-p", "fault=raises", "--max-restarts", "0", *FAULTS)
    assert run.code == run.record["exit_code"] == ExitCode.USER_CODE
    assert "the learning rate is zero" in run.text
    ended = submit.wait_for(lambda: submit.ended(name[1]))
    assert ended["finalStatus"] == "FAILED"
    assert f"/node/containerlogs/{ended['id'].replace('application', 'container')}_" in run.text
    assert f"after the run: tfos logs {ended['id']}" in run.text


QUEUE = (("--queue", "nope"), ExitCode.CONFIG, "--queue nope does not take the application")
TOO_LARGE = (
    ("--chief-memory", "100g"),
    ExitCode.RESOURCES,
    "lower --chief-, --worker- or --ps-memory",
)


@pytest.mark.parametrize(
    ("mode", "options", "code", "words"),
    [
        pytest.param("client", *QUEUE, id="client-queue"),
        pytest.param("cluster", *TOO_LARGE, id="cluster-memory"),
        pytest.param("cluster", *QUEUE, id="cluster-queue", marks=pytest.mark.faults),
        pytest.param("client", *TOO_LARGE, id="client-memory", marks=pytest.mark.faults),
    ],
)
def test_what_yarn_does_not_take_is_told(submit, mode, options, code, words):
    run = submit("--deploy-mode", mode, *options, "-p", "fault=none", *FAULTS)
    assert run.code == code
    assert words in run.record["error"]


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_an_application_killed_in_yarn_is_told(submit, mode, monkeypatch):
    where = ("--deploy-mode", mode, "--chief-memory", "1280m", "--name", f"hung-{mode}")
    process = submit.start(*where, "-p", "fault=hangs", *FAULTS)
    application = submit.application()
    submit.wait_for(lambda: len(submit.yarn.containers()) > 1)
    monkeypatch.setenv("HADOOP_CONF_DIR", submit.yarn.record.configuration)
    with YarnClient.open() as yarn:
        yarn.kill(application)
    run = submit.finish(process)
    assert run.code == ExitCode.INTERRUPTED
    assert "killed" in run.record["error"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("state", "said", "options"),
    [
        pytest.param("ACCEPTED", "", ("-p", "fault=none"), id="queued"),
        pytest.param("RUNNING", "pre_train waits", ("-p", "fault=pre_train_waits"), id="pre_train"),
        pytest.param("RUNNING", "waiting for executors", SPREAD, id="ring"),
    ],
)
def test_an_application_killed_before_it_trains_is_told(submit, state, said, options, monkeypatch):
    monkeypatch.setenv("HADOOP_CONF_DIR", submit.yarn.record.configuration)
    with YarnClient.open() as yarn:
        process = submit.start("--arch", "plain", *options, FAULTY)
        (found,) = submit.wait_for(lambda: submit.applications(state))
        assert not said or any(said in line for line in process.stdout)
        yarn.kill(found["id"])
        began = time.monotonic()
        run = submit.finish(process)
    assert run.code == ExitCode.INTERRUPTED
    assert "killed" in run.record["error"]
    assert time.monotonic() - began < 60.0


@pytest.mark.faults
def test_nothing_waits_in_the_queue_for_a_driver_that_was_ended(submit):
    process = submit.start("--name", "queued", "-p", "fault=none", *FAULTS)
    submit.wait_for(lambda: submit.applications("ACCEPTED"))
    process.send_signal(signal.SIGTERM)
    assert submit.finish(process).code == ExitCode.INTERRUPTED
    # It would look for the driver, once it has room, for 100 s.
    ended = submit.wait_for(lambda: submit.ended("queued"), 30.0)
    assert ended["finalStatus"] == "KILLED"


def test_nobody_need_wait(submit):
    where = (*CLUSTER, "--no-wait", "--chief-memory", "1280m", "--name", "late")
    run = submit(*where, "--tags", "nightly", "--priority", "3", "-p", "fault=hangs", *FAULTS)
    assert run.code == ExitCode.OK
    told = json.loads(run.out.splitlines()[-1])
    application = told["application_id"]
    submit.wait_for(submit.training)
    assert "RUNNING" in submit.tfos("status", "late")
    (found,) = [a for a in submit.applications("RUNNING") if a["id"] == application]
    assert {"tfos", "nightly"} <= set(found["applicationTags"].split(","))
    assert found["priority"] == 3
    # Before NodeManagers have uploaded the logs, there are none to fetch.
    submit.wait_for(lambda: "arch plain" in submit.tfos("logs", application, code=None))
    told = submit.tfos("kill", application)
    # A driver that takes more than a minute to end is killed, and leaves no record.
    assert "KILLED" in told
    assert "had ended" in submit.tfos("kill", application)
    submit.wait_for(lambda: "arch plain" in submit.tfos("logs", application, code=None))
    assert "YARN knows no run named 'nobody'" in submit.tfos("status", "nobody", code=2)
    submit.hdfs.rm(f"{submit.home}/.tfos/runs/{application}", recursive=True)


@pytest.mark.faults
def test_a_signal_ends_a_driver_in_the_cluster_in_order(submit):
    process = submit.start(*CLUSTER, "--chief-memory", "1280m", "-p", "fault=hangs", *FAULTS)
    application = submit.application()
    submit.wait_for(lambda: len(submit.yarn.containers()) > 1)
    process.send_signal(signal.SIGTERM)
    run = submit.finish(process)
    assert run.code == run.record["exit_code"] == ExitCode.INTERRUPTED
    assert "asking application_" in run.text
    # An orderly end is no failure, after which YARN would begin another attempt.
    (ended,) = [a for a in submit.applications("FINISHED,FAILED,KILLED") if a["id"] == application]
    assert ended["finalStatus"] == "KILLED"
    assert submit.attempts(application) == 1


def test_a_driver_whose_python_lacks_packages_says_which_and_where(submit, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = f"spark.pyspark.python={bare}/bin/python"
    run = submit(*CLUSTER, "--spark-conf", python, "-p", "fault=none", *FAULTS)
    assert run.code == run.record["exit_code"] == ExitCode.CONFIG
    said = run.record["error"]
    assert f"the driver's Python, {bare}/bin/python (3." in said
    assert re.search(r" lacks (tfos|pydantic); ship an environment by --env venv:DIRECTORY", said)


@pytest.mark.faults
@pytest.mark.zookeeper
def test_the_second_run_of_a_job_names_the_first(submit):
    where = (*CLUSTER, "--chief-memory", "1280m", "--name", "nightly", "-p", "fault=hangs", *FAULTS)
    first = submit.start(*where)
    submit.application()
    submit.wait_for(lambda: len(submit.yarn.containers()) > 1)
    second = submit(*where)
    assert second.code == ExitCode.ALREADY_RUNNING
    assert re.search(r"already running \(run .*, on .*, pid \d+, of user", second.record["error"])
    first.send_signal(signal.SIGTERM)
    assert submit.finish(first).code == ExitCode.INTERRUPTED
