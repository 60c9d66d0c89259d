"""What goes wrong is said in one line, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from support.drills import command_line
from support.small_disk import mounted
from support.waiting import meanwhile, wait_for

from tfos.errors import ExitCode

APPS = Path(__file__).parent / "apps"
FAULTY = str(APPS / "faults.py")
FAULTS = ("--arch", "plain", FAULTY)
# What fails once would fail again.
ONCE = ("--max-restarts", "0")

pytestmark = [pytest.mark.spark, pytest.mark.tf, pytest.mark.timeout(200)]


def error_line(run) -> str:
    lines = [line for line in run.err.splitlines() if line.startswith("pl_submit: error:")]
    assert len(lines) == 1, run.err[-3000:]
    return lines[0]


def check(run, code: ExitCode, *words: str) -> None:
    assert run.code == code, run.err[-4000:]
    line = error_line(run)
    for word in words:
        assert word in line
    assert run.record["exit_code"] == code
    assert run.record["error"]


# -- before Spark starts -----------------------------------------------------------------------


def test_missing_application_file(submit):
    check(submit("nowhere.py"), ExitCode.CONFIG, "nowhere.py")


def test_more_roles_than_slots(submit):
    run = submit("--master", "local[2]", "--arch", "ps", FAULTY)
    check(run, ExitCode.RESOURCES, "local[2]", "4")


# -- the application ---------------------------------------------------------------------------


def test_an_application_that_cannot_be_imported(submit, app):
    run = submit(app("from tfos import Job\n1 / 0\nMade = make(Job)\n"))
    check(run, ExitCode.USER_CODE, "app.py", "ZeroDivisionError")
    assert 'app.py", line 2' in run.text


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("pre_train_stops", ExitCode.CONFIG, ["pre_train stopped the Spark session"]),
        ("spark_stops", ExitCode.INFRASTRUCTURE, ["Spark was stopped by somebody else"]),
    ],
)
def test_a_session_that_ends(submit, fault, code, words):
    check(submit("-p", f"fault={fault}", *FAULTS), code, *words)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("pre_train_raises", "LookupError: no such table: clicks"),
        ("pre_train_raises_oddly", "OddError: its __str__ raised"),
        ("spark_raises", "bad row"),
    ],
)
def test_bad_data(in_session, fault, words):
    check(in_session("-p", f"fault={fault}", *FAULTS), ExitCode.USER_CODE, words)


def test_bad_data_of_one_worker_ends_them_all(in_session):
    run = in_session("--arch", "ps", "--num-workers", "2", "-p", "fault=null", FAULTY)
    check(run, ExitCode.USER_CODE, "worker-0", "value", "null")
    assert run.record["incidents"] == []


# -- the training process ----------------------------------------------------------------------


def test_train_that_raises_shows_the_users_own_lines_whatever_shutdown_raises(submit):
    run = submit("-p", "fault=raises", "-p", "shutdown=raises", *ONCE, *FAULTS)
    check(run, ExitCode.USER_CODE, "chief-0", "ZeroDivisionError", "learning rate is zero")
    assert "faults.py" in run.text
    assert "do_raises" in run.text
    (failure,) = run.record["failures"]
    assert failure["step"] == 17
    assert 'faults.py", line' in failure["traceback"]
    assert "shutdown failed too" in run.text


def test_train_that_calls_os_exit(in_session):
    run = in_session("-p", "fault=os_exit", *ONCE, *FAULTS)
    check(run, ExitCode.USER_CODE, "code 9")
    assert "about to leave" in run.record["failures"][0]["last_lines"]


def test_train_that_crashes_in_native_code(in_session):
    run = in_session("-p", "fault=crashes", *ONCE, *FAULTS)
    check(run, ExitCode.INFRASTRUCTURE, "SIGSEGV")
    stacks = run.record["failures"][0]["stacks"]
    assert stacks.startswith("Fatal Python error: Segmentation fault")
    assert "in do_crashes" in stacks


def test_train_that_prints_100_mb_and_a_shutdown_that_raises_do_not_fail_the_run(in_session):
    run = in_session("-p", "fault=prints", "-p", "shutdown=raises", *FAULTS)
    assert run.code == ExitCode.OK
    assert len(run.text) < 16 << 20
    assert "shutdown failed too" in run.text
    assert run.record["result"] == {"rows": 2000}


def test_a_worker_that_is_killed_ends_the_whole_run(in_session):
    arguments = ["--arch", "session", "-p", "fault=killed", "-p", "where=worker-1", FAULTY]
    run = in_session(*ONCE, *arguments)
    check(run, ExitCode.INFRASTRUCTURE, "worker-1", "SIGKILL")
    assert "memory" in run.record["failures"][0]["hint"]


def test_grandchildren_are_ended_too(submit):
    process = submit.start("-p", "fault=grandchild", *FAULTS)
    # Its shell heeds no signal by then.
    wait_for(lambda: ["sleep", "600"] in map(command_line, submit.processes()), 150.0, poll_s=0.2)
    process.send_signal(signal.SIGTERM)
    run = submit.finish(process)
    print(run.err[-6000:])
    check(run, ExitCode.INTERRUPTED, "SIGTERM")
    assert run.record["outcome"] == "interrupted"


def test_a_run_past_its_timeout(in_session):
    # Longer than any machine takes to begin training.
    run = in_session("--timeout", "20", "-p", "fault=hangs", *FAULTS)
    check(run, ExitCode.TIMEOUT, "--timeout 20")
    assert run.record["outcome"] == "timed_out"
    assert run.record["steps"] == 1


def test_pre_train_past_the_timeout(submit):
    run = submit("--timeout", "12", "-p", "fault=pre_train_hangs", *FAULTS)
    check(run, ExitCode.TIMEOUT, "--timeout 12")


def test_a_server_that_cannot_bind_its_port(submit):
    # The role host holds the port: without SO_REUSEPORT TensorFlow cannot bind beside it.
    arguments = ["--arch", "ps", "--num-workers", "1", *ONCE, "-p", "fault=none", FAULTY]
    run = submit(*arguments, env={"TF_GRPC_REUSE_PORT": "false"})
    check(run, ExitCode.INFRASTRUCTURE)
    assert "TF_GRPC_REUSE_PORT" in run.text


# -- services and disks ------------------------------------------------------------------------


def test_zookeeper_that_cannot_be_reached(in_session):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    run = in_session("--zookeeper", address, "-p", "fault=none", *FAULTS)
    check(run, ExitCode.INFRASTRUCTURE, address, "--zookeeper")


@pytest.mark.zookeeper
def test_zookeeper_that_dies_during_the_run(in_session, tmp_path):
    from tfos.registry.embedded import EmbeddedZooKeeper

    hung = tmp_path / "hung"

    def dies() -> None:
        try:
            wait_for(hung.exists, 150.0)
        finally:
            server.stop()

    server = EmbeddedZooKeeper()
    server.start()
    with meanwhile(dies):
        hangs = ("-p", "fault=hangs", "-p", f"hung={hung}", *FAULTS)
        run = in_session("--zookeeper", server.address, *hangs)
    check(run, ExitCode.INFRASTRUCTURE, "ZooKeeper")


def test_a_checkpoint_directory_that_cannot_be_written(in_session, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    run = in_session("--checkpoint-dir", str(blocked / "ckpt"), "-p", "fault=none", *FAULTS)
    check(run, ExitCode.INFRASTRUCTURE, "--checkpoint-dir", str(blocked))


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MB."""
    with mounted(tmp_path / "tiny", "size=1m") as directory:
        yield directory


def test_a_full_disk_in_the_spool_directory(in_session, tiny_disk, app, tmp_path):
    conf = tmp_path / "spool.yaml"
    conf.write_text(f"feed:\n  spool_dir: {tiny_disk}\n  memory_bytes: 1k\n")
    path = app(
        "import tfos\n"
        "class Wide(tfos.Job):\n"
        "    def pre_train(self, spark):\n"
        "        return spark.sql('select id, repeat(cast(id as string), 100) as s"
        " from range(100000)')\n"
        "    def train(self, ctx):\n"
        "        return sum(len(b['id']) for b in ctx.batches(epochs=2))\n"
    )
    run = in_session("--conf", str(conf), path)
    check(run, ExitCode.INFRASTRUCTURE, str(tiny_disk), "spool_dir")
