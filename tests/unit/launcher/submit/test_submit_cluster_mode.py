"""What a client knows of a driver in the cluster: its words, its container, its files."""

from __future__ import annotations

import ast
import dataclasses
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfos.config import JobConfig
from tfos.errors import (
    ConfigError,
    ExitCode,
    InfrastructureError,
    InterruptedRunError,
    RendezvousClosedError,
)
from tfos.launcher.driver import main as driver_main
from tfos.launcher.handover import driver_script, run_directory
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.result import RunResult
from tfos.launcher.handover.run_directory import RunDirectory, application_of_container
from tfos.launcher.platform.hadoop_conf import default_file_system, hadoop_conf_dir
from tfos.launcher.platform.spark_refusal import explain_refusal
from tfos.launcher.submit.cluster_mode import SubmitOutput, staging_directory, telling_lines
from tfos.registry.contract import StopNotice
from tfos.registry.memory import InMemoryRun

REPORT = """\
INFO Client: Submitting application application_17_0006 to ResourceManager
INFO Client: Application report for application_17_0006 (state: ACCEPTED)
INFO Client: 
\t client token: N/A
\t diagnostics: AM container is launched
\t ApplicationMaster host: N/A
\t final status: UNDEFINED
\t user: me
INFO Client: Application report for application_17_0006 (state: ACCEPTED)
INFO Client: Application report for application_17_0006 (state: RUNNING)
WARN Something: is odd
INFO Client: Application report for application_17_0006 (state: FINISHED)
INFO Client: 
\t client token: N/A
\t diagnostics: User application exited with 4
it is said on two lines
\t ApplicationMaster host: h
\t final status: FAILED
"""


def test_spark_submits_lines_tell_of_the_application():
    output = SubmitOutput()
    states = [state for line in REPORT.splitlines() if (state := output.hear(line)) is not None]
    assert states == ["ACCEPTED", "RUNNING", "FINISHED"]
    assert (output.application, output.final_status) == ("application_17_0006", "FAILED")
    assert output.diagnostics == "User application exited with 4\nit is said on two lines"
    assert list(output.said) == ["WARN Something: is odd"]


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (
            "java.lang.IllegalArgumentException: Required executor memory (25600 MB), offHeap "
            "memory (0) MB, overhead (76800 MB), and PySpark memory (0 MB) is above the max "
            "threshold (6144 MB) of this cluster! Please check the values",
            ExitCode.RESOURCES,
            "no container more than 6144 MiB",
        ),
        (
            "Caused by: YarnException: Failed to submit application_1_2 to YARN : Application "
            "application_1_2 submitted by user me to unknown queue: nope",
            ExitCode.CONFIG,
            "--queue night does not take the application",
        ),
        (
            "java.net.ConnectException: Call From a to b failed on connection exception",
            ExitCode.INFRASTRUCTURE,
            "the cluster of HADOOP_CONF_DIR does not answer",
        ),
        (
            "An error occurred while calling o1.JavaSparkContext.\n: org.apache.spark."
            "SparkException: Application diagnostics message: Application application_1_2 was "
            "killed by user me at 10.0.0.1",
            ExitCode.INTERRUPTED,
            "application_1_2 was killed by user me",
        ),
        ("Exception in thread main: Weird", ExitCode.INFRASTRUCTURE, "Spark did not start: Excep"),
        ("", ExitCode.INFRASTRUCTURE, "it did not say why"),
    ],
)
def test_why_spark_did_not_take_it(said, code, words):
    config = JobConfig.model_validate({"spark": {"master": "yarn", "queue": "night"}})
    error = explain_refusal(said, config)
    assert error.exit_code == code
    assert words in str(error)


def test_the_application_of_a_container():
    assert application_of_container("container_17_0006_02_000001") == ("application_17_0006", 2)
    assert application_of_container("container_e9_17_0006_01_000001") == ("application_17_0006", 1)
    with pytest.raises(InfrastructureError, match="CONTAINER_ID is ''"):
        application_of_container("")


def test_a_run_directory_carries_the_record_and_the_wish_to_end(tmp_path):
    directory = RunDirectory(f"file://{tmp_path}/runs", "application_1_2")
    assert (directory.read(), directory.stop_asked()) == (None, None)
    result = RunResult(outcome="done", exit_code=0, steps=7)
    directory.write(result)
    directory.ask_stop("enough")
    assert (directory.read(), directory.stop_asked()) == (result, "enough")
    names = sorted(path.name for path in (tmp_path / "runs" / "application_1_2").iterdir())
    assert names == ["result.json", "stop"]
    directory.remove()
    directory.remove()
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.fixture
def left(monkeypatch):
    """Whether what a driver left in a ZooKeeper is erased, and how it noted that."""
    run = InMemoryRun()
    driver = run.connect()
    address = RegistryAddress("h:1", "/tfos/clicks/1", "s3cret", 10.0, 10.0)

    def connect(self):
        assert self == address
        return run.connect()

    def erased():
        try:
            driver.stop(StopNotice("failed", "asked"))
        except RendezvousClosedError:
            return True
        return False

    monkeypatch.setattr(RegistryAddress, "connect", connect)
    return erased, address


def test_a_run_directory_leads_to_what_a_driver_left(tmp_path):
    address = RegistryAddress("h:1", "/tfos/clicks/1", "s3cret", 10.0, 10.0)
    directory = RunDirectory(f"file://{tmp_path}/runs", "application_1_2")
    assert directory.registry() is None
    directory.note_registry(address)
    assert directory.registry() == address
    (note,) = tmp_path.rglob("*.json")
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    note.write_text("{")
    with pytest.raises(InfrastructureError, match="could not be read"):
        directory.registry()


def test_a_signal_is_no_failure_of_a_run_directory(tmp_path, monkeypatch):
    directory = RunDirectory(f"file://{tmp_path}/runs", "application_1_2")

    def interrupted(*_, **__):
        raise InterruptedRunError("interrupted by SIGTERM", signal_name="SIGTERM")

    monkeypatch.setattr(run_directory, "set_mode", interrupted)
    address = RegistryAddress("h:1", "/tfos/clicks/1", "s3cret", 10.0, 10.0)
    with pytest.raises(InterruptedRunError):
        driver_main._note_registry(directory, None, address)


@pytest.mark.parametrize("ended", [False, True])
def test_a_later_attempt_removes_what_the_one_before_left(tmp_path, monkeypatch, left, ended):
    erased, address = left
    runs = f"file://{tmp_path}/runs"
    done = RunResult(outcome="done", exit_code=0)
    own = dataclasses.replace(address, root="/tfos/clicks/2")

    def run(*_, note_registry, **__):
        assert not erased()  # not before the lock is held
        note_registry(own)
        return done

    monkeypatch.setattr(driver_main, "_run", run)
    monkeypatch.setenv("CONTAINER_ID", "container_17_0006_02_000001")
    directory = RunDirectory(runs, "application_17_0006")
    directory.note_registry(address)
    if ended:
        directory.write(done)
    assert driver_main._main_in_cluster(None, JobConfig(), runs) == 0
    assert erased() == (not ended)
    assert directory.registry() == (address if ended else own)


@pytest.mark.parametrize("removed", [False, True])
def test_a_later_attempt_starts_over_unless_one_did(tmp_path, monkeypatch, removed):
    runs, seen = f"file://{tmp_path}/runs", []
    config = JobConfig.model_validate({"checkpoints": {"dir": "/c", "fresh": True}})

    def run(submission, config, watch, started_over, **_):
        seen.append(config.checkpoints.fresh)
        started_over()
        return RunResult(outcome="done", exit_code=0)

    monkeypatch.setattr(driver_main, "_run", run)
    monkeypatch.setenv("CONTAINER_ID", "container_17_0006_02_000001")
    directory = RunDirectory(runs, "application_17_0006")
    if removed:
        directory.note_fresh()
    assert driver_main._main_in_cluster(None, config, runs) == 0
    assert seen == [not removed]
    assert directory.was_fresh()
    # The run itself has ended: nothing is run again.
    assert driver_main._main_in_cluster(None, config, runs) == 0
    assert len(seen) == 1


def test_the_hadoop_configuration_is_found_and_read(tmp_path):
    with pytest.raises(ConfigError, match="--master yarn needs HADOOP_CONF_DIR"):
        hadoop_conf_dir({})
    environ = {"YARN_CONF_DIR": str(tmp_path), "HADOOP_USER_NAME": "me"}
    with pytest.raises(ConfigError, match=r"there is no yarn-site.xml in it"):
        hadoop_conf_dir(environ)
    (tmp_path / "yarn-site.xml").touch()
    assert hadoop_conf_dir(environ) == tmp_path
    assert default_file_system(tmp_path) == "file:"
    site = "<configuration><property><name> fs.defaultFS </name><value>hdfs://nn:8020/</value>"
    (tmp_path / "core-site.xml").write_text(f"{site}</property></configuration>")
    assert default_file_system(tmp_path) == "hdfs://nn:8020"
    assert staging_directory(JobConfig(), environ) == "hdfs://nn:8020/user/me/.tfos"
    own = JobConfig.model_validate({"spark": {"staging_dir": "hdfs://nn/x/"}})
    assert staging_directory(own, {}) == "hdfs://nn/x"
    (tmp_path / "core-site.xml").write_text("<oops")
    with pytest.raises(ConfigError, match=r"core-site.xml cannot be read"):
        default_file_system(tmp_path)


def test_a_driver_that_could_not_start_is_a_record_too(tmp_path):
    directory = RunDirectory(f"file://{tmp_path}/runs", "application_1_2")
    assert directory.read() is None
    place = tmp_path / "runs" / "application_1_2"
    place.mkdir(parents=True)
    (place / driver_script.NOT_STARTED).write_text("the driver's Python lacks psutil")
    record = directory.read()
    assert (record.exit_code, record.outcome) == (ExitCode.CONFIG, "failed")
    assert record.error == "the driver's Python lacks psutil"
    done = RunResult(outcome="done", exit_code=0)
    directory.write(done)
    assert directory.read() == done


def test_the_driver_needs_nothing_but_the_standard_library_to_say_what_is_lacking(tmp_path):
    """Run as the hosts' own Python runs it: without tfos, without packages."""
    script = shutil.copy(driver_script.__file__, tmp_path / "driver_script.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, "submission.json"], capture_output=True, text=True
    )
    assert done.returncode == ExitCode.CONFIG
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"tfos: error: the driver's Python, {sys.executable} (3.")
    assert " lacks tfos; ship an environment by --env" in first
    assert "Traceback" not in done.stderr


def test_an_old_python_is_told_as_that():
    assert "is too old: tfos needs Python 3.10" in driver_script.explain(SyntaxError("x"))
    assert "lacks psutil;" in driver_script.explain(ModuleNotFoundError("No", name="psutil"))
    # What an old Python cannot even read cannot say that it is old.
    source = Path(driver_script.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))


@pytest.mark.parametrize(
    ("diagnostics", "told"),
    [
        ("", ""),
        ("User application exited with 4", "User application exited with 4"),
        (
            "Application application_1 failed 2 times due to AM Container exited with  exitCode: 1"
            "\nLast 4096 bytes of stderr :\n26/11/30 INFO A: b\n26/11/30 INFO C: d\n"
            'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\n'
            "ModuleNotFoundError: No module named 'psutil'\n26/11/30 INFO ShutdownHook: called",
            "ModuleNotFoundError: No module named 'psutil'",
        ),
        (
            "x\njava.io.IOException: disk\n\tat a.b.C(D.java:3)\nCaused by: java.lang.Error: no\n"
            "\t... 3 more\n",
            "java.io.IOException: disk; Caused by: java.lang.Error: no",
        ),
    ],
)
def test_of_yarns_diagnostics_the_telling_lines_are_quoted(diagnostics, told):
    assert telling_lines(diagnostics) == told
