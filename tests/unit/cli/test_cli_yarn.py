"""`tfos status` and `tfos kill`: where they look for a run's record, and leave the wish to end."""

import contextlib
import dataclasses
import json

import pytest
from click.testing import CliRunner

from tfos.cli.main import main
from tfos.errors import ExitCode
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.result import RunResult
from tfos.launcher.handover.run_directory import RunDirectory, runs_root
from tfos.launcher.platform.yarn_client import Application, YarnClient
from tfos.launcher.submit import cluster_mode as cluster_client
from tfos.launcher.submit import yarn_runs as applications

ID = "application_17_0006"
RUNNING = Application(
    id=ID,
    name="clicks",
    queue="default",
    user="me",
    state="RUNNING",
    final_status="UNDEFINED",
    tracking_url="",
    diagnostics="",
    started=1,
    tags=("tfos", "tfos-cluster"),
)


class Yarn:
    """Stands in for `YarnClient`: knows one application, which ends when its driver is asked."""

    def __init__(self, directory: RunDirectory):
        self.directory = directory
        self.killed = False

    user = "me"

    def find(self, _tag):
        later = dataclasses.replace(RUNNING, id="application_17_0007", started=2)
        theirs = dataclasses.replace(later, user="you")
        return [
            RUNNING,
            dataclasses.replace(later, state="FINISHED"),
            theirs,
            dataclasses.replace(theirs, name="theirs"),
            dataclasses.replace(RUNNING, name="twice"),
            dataclasses.replace(later, name="twice"),
        ]

    def status(self, _application):
        if self.directory.stop_asked() is None:
            return RUNNING
        return dataclasses.replace(RUNNING, state="FINISHED", final_status="FAILED")

    def kill(self, _application):
        self.killed = True


@pytest.fixture
def staging(tmp_path, monkeypatch):
    """A staging directory that only a configuration file tells of."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("TFOS_CONF_DIR", "HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"spark: {{staging_dir: 'file://{tmp_path}/staging'}}\n")
    return f"file://{tmp_path}/staging"


@pytest.fixture
def yarn(staging, monkeypatch):
    found = Yarn(RunDirectory(runs_root(staging), ID))
    monkeypatch.setattr(YarnClient, "open", lambda: contextlib.nullcontext(found))
    monkeypatch.setattr(applications, "_POLL_S", 0.0)
    return found


def run(*args):
    return CliRunner().invoke(main, args, prog_name="tfos")


def test_the_record_is_where_the_configuration_says(yarn):
    yarn.directory.write(RunResult(outcome="done", exit_code=0, steps=7))
    result = run("status", "--conf", "c.yaml", "--json", "clicks")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"]["steps"] == 7
    # By default it would be in the home of a file system that nothing here names.
    assert json.loads(run("status", "--json", "clicks").stdout)["run"] is None


def test_the_configuration_directory_counts_too(yarn, tmp_path, monkeypatch):
    yarn.directory.write(RunResult(outcome="done", exit_code=0, steps=7))
    (tmp_path / "conf").mkdir()
    (tmp_path / "c.yaml").rename(tmp_path / "conf" / "site.yaml")
    monkeypatch.setenv("TFOS_CONF_DIR", str(tmp_path / "conf"))
    assert "run            done, exit code 0" in run("status", ID).stdout


def test_a_driver_is_asked_to_end_where_it_looks(yarn):
    yarn.directory.write(RunResult(outcome="interrupted", exit_code=130))
    result = run("kill", "--conf", "c.yaml", "clicks")
    assert result.stdout == f"{ID} FINISHED FAILED\n"
    assert not yarn.killed
    assert yarn.directory.stop_asked() == "tfos kill"


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_killed_driver_left_is_removed(yarn, monkeypatch, ended):
    erased = []
    works = iter([False, True])

    def erase(address):
        erased.append(address)
        return next(works)

    monkeypatch.setattr(cluster_client, "erase_last_run", erase)
    address = RegistryAddress("h:1", "/tfos/clicks/1", "s3cret", 10.0, 10.0)
    yarn.directory.note_registry(address)
    if ended:
        yarn.directory.ask_stop("to be seen as ended")
    # The way there stays until it has worked.
    for times in (1, 2, 2):
        assert run("kill", "--conf", "c.yaml", ID).exit_code == 0
        assert erased == [address] * times
    assert yarn.directory.registry() is None


def test_of_two_runs_that_live_none_is_taken_for_the_other(yarn):
    result = run("kill", "--conf", "c.yaml", "twice")
    assert result.exit_code == ExitCode.CONFIG
    assert f"2 runs named 'twice' are alive: give the id of one: {ID}, " in result.stderr
    assert yarn.directory.stop_asked() is None


def test_a_name_does_not_mean_the_run_of_another_user(yarn):
    result = run("kill", "--conf", "c.yaml", "theirs")
    assert result.exit_code == ExitCode.CONFIG
    assert "me has no run named 'theirs'; the latest of that name is you's" in result.stderr
    assert "application_17_0007" in result.stderr
    assert yarn.directory.stop_asked() is None


@pytest.mark.usefixtures("yarn")
@pytest.mark.parametrize("command", ["status", "kill"])
def test_a_wrong_file_is_told_in_one_line(command, tmp_path):
    (tmp_path / "c.yaml").write_text("spark: {staging: x}\n")
    result = run(command, "--conf", "c.yaml", "clicks")
    assert result.exit_code == ExitCode.CONFIG
    assert f"tfos {command}: error: c.yaml: spark.staging is not a setting" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "--conf FILE" in run(command, "--help").output
