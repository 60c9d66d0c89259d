"""The client and real processes: a stand-in for spark-submit, signals, nothing left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from support.waiting import wait_for

from tfos.errors import ConfigError
from tfos.fault.failures.record import Cause, Failure
from tfos.launcher.handover.result import RunResult
from tfos.launcher.submit.prerequisites import check_files, check_java, child_environment, parse_app

FAKE_SPARK = """\
#!{python}
import json, os, pathlib, subprocess, sys, time
seen = pathlib.Path(os.environ["SEEN"])
submission = json.loads(pathlib.Path(sys.argv[-1]).read_text())
room = pathlib.Path(sys.argv[-1]).parent
seen.write_text(json.dumps({{
    "argv": sys.argv, "session": os.getsid(0), "pid": os.getpid(), "room": str(room),
    "modes": {{p.name: p.stat().st_mode for p in [room, *room.iterdir()]}},
    "environ": dict(os.environ), "submission": submission,
    "secrets": (room / "secrets.conf").read_text(),
}}))
# Like Spark's Python daemon: in the session, in a process group of its own.
subprocess.Popen(["sleep", "60"], process_group=0)
if os.environ["DRIVER"] == "none":
    sys.exit(1)
if os.environ["DRIVER"] == "slow-start":
    time.sleep(60)
program = pathlib.Path(os.environ["SEEN"]).with_name("driver.py")
code = subprocess.call([sys.executable, str(program), sys.argv[-1]])
sys.exit(code if code >= 0 else 128 - code)
"""

DRIVER = """\
import json, os, pathlib, signal, sys, time
from tfos.fault.failures.record import Cause, Failure
from tfos.launcher.handover.result import RunResult
submission = json.loads(pathlib.Path(sys.argv[1]).read_text())
behaviour = os.environ["DRIVER"]
stopped = []
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, frame: stopped.append(number))
pathlib.Path(submission["pid_file"]).write_text(str(os.getpid()))
def end(code, **fields):
    RunResult(exit_code=code, **fields).write(submission["result_file"])
    sys.exit(code)
if behaviour == "done":
    end(0, outcome="done", result=submission["config"]["args"])
if behaviour == "user-error":
    failure = Failure("worker-0", Cause.USER_CODE, "raised", 1.0)
    end(4, outcome="failed", error="train raised", failures=(failure,))
if behaviour == "vanish":
    os._exit(0)
if behaviour == "own-code":
    os._exit(3)
if behaviour == "odd-code":
    os._exit(42)
if behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "done-then-crash":
    RunResult("done", 0).write(submission["result_file"])
    os._exit(9)
pathlib.Path(os.environ["SEEN"]).with_name("ready").write_text("")
until = time.monotonic() + 60
while time.monotonic() < until and (behaviour == "deaf" or not stopped):
    time.sleep(0.02)
end(130, outcome="interrupted", error=f"interrupted by {signal.Signals(stopped[0]).name}")
"""


class Client:
    """Runs the real client in a process, against the stand-in."""

    def __init__(self, directory: Path):
        self.directory = directory
        submit = directory / "spark" / "bin" / "spark-submit"
        submit.parent.mkdir(parents=True)
        submit.write_text(FAKE_SPARK.format(python=sys.executable))
        submit.chmod(0o755)
        (directory / "driver.py").write_text(DRIVER)
        (directory / "app.py").write_text("from jobs import *")
        (directory / "tmp").mkdir()
        self.record_file = directory / "record.json"
        self.process: subprocess.Popen[str] | None = None

    def start(self, behaviour: str, *arguments: str, patch: str = "") -> None:
        program = textwrap.dedent(
            f"""
            import tfos.launcher.submit.spark_process as spark_process
            {patch}
            from tfos.cli.main import pl_submit
            pl_submit(prog_name="pl_submit")
            """
        )
        options = ["--result-json", str(self.record_file), *arguments, "app.py", "--", "x"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *options],
            cwd=self.directory,
            env={
                **os.environ,
                "HOME": str(self.directory),
                "TMPDIR": str(self.directory / "tmp"),
                "SPARK_HOME": str(self.directory / "spark"),
                "SEEN": str(self.directory / "seen.json"),
                "DRIVER": behaviour,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self) -> tuple[int, str]:
        """Await the client; return its exit code and standard error; nothing may be left."""
        _, errors = self.process.communicate(timeout=60)
        assert list((self.directory / "tmp").iterdir()) == []
        if (self.directory / "seen.json").exists():
            assert session_members(self.seen["session"]) == []
        return self.process.returncode, errors

    def run(self, behaviour: str, *arguments: str, patch: str = "") -> tuple[int, str]:
        self.start(behaviour, *arguments, patch=patch)
        return self.end()

    def await_file(self, name: str) -> None:
        wait_for((self.directory / name).exists)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @property
    def seen(self) -> dict:
        return json.loads((self.directory / "seen.json").read_text())

    @property
    def record(self) -> RunResult:
        return RunResult.read(self.record_file)


def session_members(session: int) -> list[int]:
    def is_member(pid: int) -> bool:
        try:
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            return alive and os.getsid(pid) == session
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False

    return [pid for pid in psutil.pids() if is_member(pid)]


@pytest.fixture
def client(tmp_path):
    made = Client(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.communicate()
    if (tmp_path / "seen.json").exists():
        for pid in session_members(made.seen["session"]):
            os.kill(pid, signal.SIGKILL)


def test_a_run_that_ends_well(client):
    code, errors = client.run("done")
    assert (code, errors) == (0, "")
    assert (client.record.outcome, client.record.result) == ("done", ["x"])


def test_what_spark_submit_is_given(client):
    secret = "spark.authenticate.secret=tr\u00e8s s=cr\\et"
    assert client.run("done", "--spark-conf", secret, "--master", "local[3]")[0] == 0
    seen, submission = client.seen, client.seen["submission"]
    assert seen["session"] == seen["pid"]
    assert submission["app"] == str(client.directory / "app.py")
    assert submission["job_class"] is None
    assert submission["client"]["pid"] == client.process.pid
    modes = {name: stat.S_IMODE(mode) for name, mode in seen["modes"].items()}
    assert modes.pop(Path(seen["room"]).name) == 0o700
    assert set(modes) == {"submission.json", "secrets.conf"}
    assert set(modes.values()) == {0o600}
    assert not [word for word in seen["argv"] if "tr\u00e8s" in word or "cr\\et" in word]
    assert seen["secrets"] == ("spark.authenticate.secret=tr\\u00e8s\\u0020s=cr\\u005cet\n")
    environ = seen["environ"]
    assert environ["PYSPARK_PYTHON"] == environ["PYSPARK_DRIVER_PYTHON"] == sys.executable
    assert environ["SPARK_HOME"] == str(client.directory / "spark")


@pytest.mark.parametrize(
    ("behaviour", "code", "outcome", "says"),
    [
        ("user-error", 4, "failed", "train raised"),
        ("none", 5, "failed", "spark-submit ended with exit code 1 before the driver started"),
        ("vanish", 5, "failed", "left no record"),
        ("own-code", 3, "failed", "exit code 3 before it could write the run's record"),
        ("odd-code", 5, "failed", "exit code 42 and left no record"),
        ("killed", 5, "failed", "exit code 137 and left no record"),
        ("done-then-crash", 0, "done", ""),
    ],
)
def test_exit_codes_and_records_of_other_ends(client, behaviour, code, outcome, says):
    RunResult("done", 0, error="an older run").write(client.record_file)
    ended, errors = client.run(behaviour)
    assert ended == code
    assert errors.count("\n") == (1 if code else 0)
    assert says in errors
    assert (client.record.outcome, client.record.exit_code) == (outcome, code)
    assert says in (client.record.error or "")


def test_a_failed_roles_record_is_kept(client):
    client.run("user-error")
    assert client.record.failures == (Failure("worker-0", Cause.USER_CODE, "raised", 1.0),)


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (signal.SIGINT, "SIGINT"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGHUP, "SIGTERM"),
    ],
)
def test_a_signal_reaches_the_driver_which_ends_in_order(client, sent, received):
    client.start("wait")
    client.await_file("ready")
    client.signal(sent)
    assert client.end()[0] == 130
    # The driver's own record, not the client's.
    assert client.record.error == f"interrupted by {received}"


def test_a_background_job_of_a_script_hears_an_interrupt_and_nohup_no_hangup(client):
    ignoring = "; ".join(
        f"import signal; signal.signal(signal.{name}, signal.SIG_IGN)"
        for name in ("SIGINT", "SIGHUP")
    )
    client.start("wait", patch=ignoring)
    client.await_file("ready")
    client.signal(signal.SIGHUP)
    time.sleep(0.3)
    client.signal(signal.SIGINT)
    assert client.end()[0] == 130
    assert client.record.error == "interrupted by SIGINT"


def test_a_second_signal_kills_at_once(client):
    client.start("deaf")
    client.await_file("ready")
    began = time.monotonic()
    client.signal(signal.SIGINT)
    time.sleep(0.5)
    assert client.process.poll() is None
    client.signal(signal.SIGINT)
    assert client.end()[0] == 130
    assert time.monotonic() - began < 10
    assert (client.record.outcome, client.record.error) == ("interrupted", "interrupted by SIGINT")


def test_a_driver_that_does_not_end_is_killed_after_its_time(client):
    client.start(
        "deaf",
        "--conf",
        str(_grace(client.directory)),
        patch="spark_process.INTERRUPT_EXTRA_S = 0.3",
    )
    client.await_file("ready")
    began = time.monotonic()
    client.signal(signal.SIGTERM)
    assert client.end()[0] == 130
    assert 0.5 <= time.monotonic() - began < 10
    assert client.record.error == "interrupted by SIGTERM"


def test_a_signal_before_the_driver_kills_everything(client):
    client.start("slow-start")
    client.await_file("seen.json")
    client.signal(signal.SIGTERM)
    assert client.end()[0] == 130
    assert client.record.outcome == "interrupted"


def test_the_backstop_ends_a_driver_that_misses_its_timeout(client):
    code, errors = client.run(
        "deaf",
        "--timeout",
        "1s",
        "--conf",
        str(_grace(client.directory)),
        patch="spark_process.BACKSTOP_S = 0.5",
    )
    assert code == 6
    assert "went past --timeout 1 s" in errors
    assert client.record.outcome == "timed_out"


def test_a_spark_submit_that_cannot_start_is_told(client):
    submit = client.directory / "spark" / "bin" / "spark-submit"
    submit.write_text("#!/nowhere/python\n")
    code, errors = client.run("done")
    assert code == 5
    assert "cannot start" in errors
    assert client.record.exit_code == 5


def _grace(directory: Path) -> Path:
    file = directory / "grace.yaml"
    file.write_text("supervision: {grace_s: 0.3}\n")
    return file


# -- what a submission needs of the machine -----------------------------------------------------


def fake_java(directory: Path, says: str, code: int = 0) -> dict[str, str]:
    java = directory / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit {code}\n")
    java.chmod(0o755)
    return {"JAVA_HOME": str(directory), "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    "says",
    [
        'openjdk version "17.0.15" 2025-04-15',
        'Picked up JAVA_TOOL_OPTIONS: -Xmx1g\njava version "21" 2023-09-19',
    ],
)
def test_new_enough_java_passes(tmp_path, says):
    check_java(fake_java(tmp_path, says))


@pytest.mark.parametrize(
    ("says", "code", "error"),
    [
        ('openjdk version "11.0.2"', 0, "is Java 11, Spark needs 17"),
        ('java version "1.8.0_392"', 0, "is Java 8, Spark needs 17"),
        ("Unrecognized VM option", 1, "said 'Unrecognized VM option'"),
    ],
)
def test_unfit_java_is_refused_with_how_to_get_one(tmp_path, says, code, error):
    with pytest.raises(ConfigError) as caught:
        check_java(fake_java(tmp_path, says, code))
    assert error in str(caught.value)
    assert "openjdk-17-jre-headless" in str(caught.value)


def test_missing_java_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"Java is missing \(JAVA_HOME"):
        check_java({"JAVA_HOME": str(tmp_path)})


def test_missing_java_ends_before_spark_starts(client, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    code, errors = client.run("done")
    assert code == 2
    assert "JAVA_HOME" in errors
    assert client.record.exit_code == 2
    assert not (client.directory / "seen.json").exists()


@pytest.mark.parametrize(
    ("app", "name", "job_class"),
    [("a.py", "a.py", None), ("a.py:J", "a.py", "J"), ("d:d/a.py", "a.py", None)],
)
def test_applications_and_their_classes(tmp_path, monkeypatch, app, name, job_class):
    (tmp_path / "d:d").mkdir()
    for file in (tmp_path / "a.py", tmp_path / "d:d" / "a.py"):
        file.write_text("")
    monkeypatch.chdir(tmp_path)
    path, found = parse_app(app)
    assert (path.name, found) == (name, job_class)
    assert path.is_absolute()


@pytest.mark.parametrize("app", ["none.py", "none.py:J", "a.txt", "d.py", "a.py:not-a-name"])
def test_what_is_no_application_is_refused(tmp_path, monkeypatch, app):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.py").write_text("")
    (tmp_path / "d.py").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="application"):
        parse_app(app)


def test_files_to_ship_must_exist_unless_they_are_elsewhere(tmp_path, monkeypatch):
    from tfos.config import JobConfig

    monkeypatch.chdir(tmp_path)
    (tmp_path / "z.tgz").write_text("")
    fine = ["z.tgz#name", "hdfs:///a.zip", "*.egg"]
    check_files(JobConfig.model_validate({"spark": {"archives": fine}}))
    with pytest.raises(ConfigError, match=r"--files: there is no file nothing\.txt"):
        check_files(JobConfig.model_validate({"spark": {"files": ["nothing.txt"]}}))


def test_a_keytab_must_be_there_to_be_read(tmp_path):
    from tfos.config import JobConfig

    def check(keytab) -> None:
        spark = {"principal": "u@R", "keytab": str(keytab)}
        check_files(JobConfig.model_validate({"spark": spark}))

    (tmp_path / "u.keytab").touch()
    check(tmp_path / "u.keytab")
    check("local:/etc/u.keytab")
    with pytest.raises(ConfigError, match=r"--keytab: there is no file .*absent that you may"):
        check(tmp_path / "absent")


def test_a_checkout_is_found_by_the_driver():
    from tfos.config import JobConfig

    environ = child_environment(JobConfig(), Path("/s"), {"PYTHONPATH": "/mine"})
    answer = subprocess.run(
        [sys.executable, "-S", "-c", "import tfos; print(tfos.__file__)"],
        env={**environ, "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert answer.stdout.strip().endswith("tfos/__init__.py")
    assert environ["PYTHONPATH"].endswith("/mine")
    assert "PYSPARK_PYTHON" not in child_environment(
        JobConfig.model_validate({"spark": {"master": "spark://h:1"}}), Path("/s"), {}
    )
