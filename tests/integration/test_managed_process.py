from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.waiting import wait_for

from tfos.errors import InfrastructureError, LaunchError
from tfos.fault.failures.exits import failure_from_exit
from tfos.fault.processes.events import ControlMessage, Exited, Mailbox
from tfos.fault.processes.managed import ManagedProcess

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

GUARDED = """
import os, signal, subprocess, sys, time
from tfos.fault.processes import guard
guard.install()
from tfos.fault.processes.channel import ControlChannel
channel = ControlChannel.from_environment()
def stubborn():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
def grandchild():
    pid = os.fork()
    if pid == 0:
        stubborn()
        time.sleep(600)
    return pid
"""


class Host:
    """A process with what it forwarded, and an environment in which tfos can be imported."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[str] = []
        self.log = directory / "worker-1.log"
        self.renew()

    def renew(self) -> None:
        self.process = ManagedProcess("worker-1", self.lines.append)

    def start(self, body: str, guarded: bool = True) -> int:
        if self.process.pid:
            self.renew()
        argv = [sys.executable, "-c", (GUARDED if guarded else "") + body]
        return self.process.start(argv, env=dict(os.environ), log_path=str(self.log))

    def message(self, timeout_s: float = 10.0) -> dict:
        event = self.process.next_event(timeout_s)
        assert isinstance(event, ControlMessage), event
        return event.body

    def exited(self, timeout_s: float = 10.0) -> Exited:
        event = self.process.next_event(timeout_s)
        assert isinstance(event, Exited), event
        return event


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.process.stop(0)


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def group_members(group: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def await_gone(*pids: int, timeout_s: float) -> float:
    begin = time.monotonic()
    wait_for(lambda: not any(runs(pid) for pid in pids), timeout_s)
    return time.monotonic() - begin


def on_disk(directory: Path) -> int:
    size = 0
    for file in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # moved, or joined with another, meanwhile
            size += file.stat().st_size
    return size


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _threads_of_others():
    """Remember the threads of tests before, which may end when they like."""
    _OTHERS[:] = threading.enumerate()
    yield
    _OTHERS.clear()


_OTHERS: list[threading.Thread] = []


def tfos_threads() -> list[str]:
    own = (thread for thread in threading.enumerate() if thread not in _OTHERS)
    return [thread.name for thread in own if thread.name.startswith("tfos-")]


def test_an_exit_is_told_after_the_messages_and_the_whole_output(host):
    host.start('print("out"); print("err", file=sys.stderr); channel.send({"n": 1}); os._exit(3)')
    assert host.message() == {"n": 1}
    exited = host.exited()
    assert exited.returncode == 3
    assert sorted(exited.last_lines) == ["err", "out"]
    assert sorted(host.lines) == ["[worker-1] err", "[worker-1] out"]
    assert sorted(host.log.read_text().split()) == ["err", "out"]
    assert host.process.next_event(0) is None
    assert not host.process.running
    assert host.process.stop(1) == 3


@pytest.mark.parametrize(("body", "code"), [("sys.exit(0)", 0), ("raise ValueError('x')", 1)])
def test_python_ends(host, body, code):
    host.start(body)
    exited = host.exited()
    assert exited.returncode == code
    if code:
        assert exited.last_lines[-1] == "ValueError: x"


def test_a_killed_process_is_told_at_once_with_its_last_words(host):
    pid = host.start('print("last words", end=""); channel.send({}); time.sleep(600)')
    host.message()
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    exited = host.exited()
    assert time.monotonic() - begin < 5
    assert exited.returncode == -9
    assert exited.last_lines == ("last words",)
    failure = failure_from_exit("worker-1", exited)
    assert failure.signal_name == "SIGKILL"
    assert group_members(pid) == []


def test_messages_reach_the_process(host):
    host.start('message = channel.receive(10); channel.send({"got": message})')
    host.process.send({"type": "stop"})
    assert host.message() == {"got": {"type": "stop"}}
    host.exited()
    with pytest.raises(InfrastructureError, match="does not run"):
        host.process.send({"type": "stop"})


def test_a_hundred_megabytes_neither_hang_nor_fill_the_disk(host):
    begin = time.monotonic()
    host.start('line = "x" * 99\nfor i in range(100):\n    print("\\n".join([line] * 10486))')
    largest = 0
    while (event := host.process.next_event(0.05)) is None:
        largest = max(largest, on_disk(host.log.parent))
        assert time.monotonic() - begin < 30
    print(f"100 MB read in {time.monotonic() - begin:.2f} s")
    assert event.returncode == 0
    # A piece that is moved or joined with another as it is looked for may count twice.
    assert largest <= 2 * ((16 << 20) + 100)
    assert host.log.stat().st_size <= (16 << 20) + 100
    forwarded = sum(map(len, host.lines))
    assert (1 << 20) < forwarded < 5 << 20
    left_out = sum(int(line.split()[2]) for line in host.lines if "left out" in line)
    passed = sum("xxx" in line for line in host.lines)
    assert left_out + passed == 1048600


def test_an_endless_line_is_no_trouble(host):
    host.start('sys.stdout.write("x" * 30_000_000)')
    assert host.exited().returncode == 0
    assert all(len(line) < 2100 for line in host.lines)
    assert host.log.stat().st_size <= (16 << 20) + 100


def test_stop_is_polite_first(host):
    host.start(
        'signal.signal(signal.SIGTERM, lambda *_: (print("ending"), sys.exit(5)))\n'
        "channel.send({})\ntime.sleep(600)"
    )
    host.message()
    assert host.process.stop(10) == 5
    assert host.lines == ["[worker-1] ending"]
    assert host.exited().returncode == 5
    assert host.process.stop(10) == 5


def test_what_ignores_sigterm_is_killed_after_the_grace(host):
    pid = host.start("stubborn(); channel.send({}); time.sleep(600)")
    host.message()
    begin = time.monotonic()
    assert host.process.stop(0.3) == -9
    assert 0.3 <= time.monotonic() - begin < 5
    assert group_members(pid) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_stopped_process_is_killed_too(host):
    pid = host.start("channel.send({}); time.sleep(600)")
    host.message()
    os.kill(pid, signal.SIGSTOP)
    assert host.process.stop(0.1) in (-9, -15)


@pytest.mark.parametrize("end", ["stop", "crash", "exit"])
def test_grandchildren_go_with_the_process(host, caplog, end):
    body = {"stop": "time.sleep(600)", "crash": "os.abort()", "exit": "sys.exit(0)"}[end]
    pid = host.start(f'channel.send({{"pid": grandchild()}})\nchannel.receive(10)\n{body}')
    grandchild = host.message()["pid"]
    assert len(group_members(pid)) == 3  # the process, its guard, the grandchild
    host.process.send({})
    if end == "stop":
        host.process.stop(0.1)
    begin = time.monotonic()
    host.exited()
    assert time.monotonic() - begin < 5
    assert "held open" not in caplog.text
    assert not runs(grandchild)
    assert group_members(pid) == []


def test_output_held_open_by_what_left_the_group_costs_two_seconds(host, caplog):
    begin = time.monotonic()
    host.start(
        "left, leaves = os.pipe()\n"
        "pid = os.fork()\n"
        'if pid == 0:\n    os.setsid(); os.write(leaves, b"."); time.sleep(600)\n'
        "os.read(left, 1)\n"  # else it may be killed with the group
        'print("said")\nchannel.send({"pid": pid})'
    )
    escaped = host.message()["pid"]
    try:
        exited = host.exited()
        assert 1.5 < time.monotonic() - begin < 8
        assert exited.last_lines == ("said",)
        assert "held open" in caplog.text
        wait_for(lambda: tfos_threads() == [])
    finally:
        os.kill(escaped, signal.SIGKILL)


HOST = """
import json, os, sys, threading, time
from tfos.fault.processes.managed import ManagedProcess
process = ManagedProcess("worker-1", lambda line: None)
def begin():
    argv = [sys.executable, "-c", sys.argv[1]]
    process.start(argv, env=dict(os.environ), log_path=sys.argv[2])
thread = threading.Thread(target=begin)
thread.start()
thread.join()
event = process.next_event(20)
print(json.dumps({"pid": process.pid, **event.body}), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("guard_dies_first", [False, True])
def test_nothing_outlives_the_host(tmp_path, kill, guard_dies_first):
    body = GUARDED + 'stubborn(); channel.send({"child": grandchild()}); time.sleep(600)'
    argv = [sys.executable, "-c", HOST, body, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as host:
        try:
            pids = json.loads(host.stdout.readline())
            members = group_members(pids["pid"])
            assert len(members) == 3
            (guard,) = set(members) - {pids["pid"], pids["child"]}
            wait_for(lambda: Path(f"/proc/{guard}/comm").read_text() == "tfos-guard\n")
            wait_for(lambda: len(os.listdir(f"/proc/{guard}/fd")) == 1)
            if guard_dies_first:
                os.kill(guard, signal.SIGKILL)
                await_gone(guard, timeout_s=10)
            else:
                os.kill(guard, signal.SIGTERM)  # is not to be had that way
            time.sleep(0.2)  # the thread that called start has long ended: nothing may follow it
            assert runs(pids["pid"])
            host.send_signal(kill)
            host.wait(5)
            if guard_dies_first:  # the parent-death signal takes the process alone
                await_gone(pids["pid"], timeout_s=10)
                os.kill(pids["child"], signal.SIGKILL)
            else:
                took = await_gone(*members, timeout_s=10)
                print(f"group gone {took * 1000:.0f} ms after its host")
        finally:
            host.kill()


def test_a_closed_control_channel_is_no_death(host):
    go = host.log.parent / "go"
    host.start(
        'channel.close(); print("still here")\n'
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "os._exit(4)"
    )
    while not host.lines:
        assert host.process.next_event(0.01) is None
    with pytest.raises(InfrastructureError, match="gone"):
        host.process.send({})
    go.touch()
    assert host.exited().returncode == 4


def test_garbage_on_the_control_channel_is_skipped(host, caplog):
    host.start(
        "sock = channel._sock\nsock.setblocking(True)\n"
        'sock.sendall(b"garbage\\n[1]\\n" + b"x" * 3_000_000 + b"\\n" + b\'{"ok":1}\\n{"half\')'
    )
    with caplog.at_level(logging.WARNING):
        assert host.message() == {"ok": 1}
        assert host.exited().returncode == 0
    assert caplog.text.count("was left out") == 3


def test_a_host_that_does_not_look_bounds_what_is_held_and_loses_nothing(host):
    host.start(
        "sent = 0\n"
        "for i in range(5000):\n"
        '    sent += channel.send({"i": i, "pad": "x" * 1000}, droppable=True)\n'
        'channel.send({"sent": sent}) if sent == 5000 else None\n'
        "print(sent)"
    )
    time.sleep(3)  # past the time in which the rest of the output is read
    received = 0
    while not isinstance(event := host.process.next_event(10), Exited):
        received += 1
    assert received == int(event.last_lines[-1])
    assert received < 5000


def test_it_is_started_once(host):
    host.start("")
    assert host.exited().returncode == 0
    with pytest.raises(LaunchError, match="worker-1 was given its training process already"):
        host.process.start([sys.executable], env={}, log_path=str(host.log))


def test_who_has_heard_of_the_exit_finds_nothing_running(host, monkeypatch):
    put_exit = Mailbox.put_exit

    def put_exit_and_be_slow(self, exited):
        put_exit(self, exited)
        time.sleep(0.05)

    monkeypatch.setattr(Mailbox, "put_exit", put_exit_and_be_slow)
    host.start("", guarded=False)
    host.exited()
    assert not host.process.running


def test_stop_during_start_leaves_nothing(host):
    for delay_s in (0.0, 0.0005, 0.002, 0.01, 0.03, 0.06):
        host.renew()
        starter = threading.Thread(target=host.start, args=("stubborn(); time.sleep(600)",))
        starter.start()
        time.sleep(delay_s)
        host.process.stop(0.05)
        starter.join()
        host.process.stop(0.0)  # it may have come before the start
        assert not host.process.running
        assert group_members(host.process.pid) == []


@pytest.mark.parametrize(
    ("argv", "cwd", "named"),
    [
        (["/no/such/program"], None, "/no/such/program"),
        ([sys.executable, "-c", "pass"], "/no/such/directory", "/no/such/directory"),
        ([sys.executable, "\0"], None, "null byte"),
    ],
)
def test_what_cannot_start_says_why_and_leaks_nothing(host, argv, cwd, named):
    before = descriptors()
    with pytest.raises(LaunchError, match=named):
        host.process.start(argv, env={}, cwd=cwd, log_path=str(host.log))
    assert host.process.stop(1) is None
    assert not host.process.running
    assert descriptors() == before
    wait_for(lambda: tfos_threads() == [])


@pytest.mark.parametrize("argv", [[sys.executable, "-c", "input()"], ["/no/such/program"]])
def test_a_start_that_takes_too_long_is_given_up_and_killed_when_it_comes(host, monkeypatch, argv):
    popen = subprocess.Popen
    begun = []

    def slow(*args, **options):
        time.sleep(0.3)
        begun.append(popen(*args, **options))
        return begun[0]

    before = descriptors()
    monkeypatch.setattr("tfos.fault.processes.managed._START_TIMEOUT_S", 0.05)
    monkeypatch.setattr(subprocess, "Popen", slow)
    with pytest.raises(LaunchError, match=r"not started within 0\.05 s"):
        host.process.start(argv, env={}, log_path=str(host.log))
    while host.process.running:
        time.sleep(0.01)
    assert [process.pid for process in begun if runs(process.pid)] == []
    assert descriptors() == before


def test_a_log_that_cannot_be_written_is_named(host):
    host.log = host.log.parent / "missing" / "log"
    with pytest.raises(LaunchError, match=r"log of worker-1 cannot be written.*missing"):
        host.start("pass")


def test_the_process_gets_its_environment_and_nothing_of_ours(host):
    secret = os.open("/dev/null", os.O_RDONLY)
    try:
        host.start(
            'left = [k for k in os.environ if k.startswith("TFOS_") and "SERVICES" not in k]\n'
            'channel.send({"left": left, "fds": os.listdir("/proc/self/fd"),\n'
            '  "group": [os.getpgrp(), os.getsid(0), os.getpid()], "in": sys.stdin.read()})'
        )
        body = host.message()
    finally:
        os.close(secret)
    assert body["left"] == []
    assert len(body["fds"]) == 5  # 0, 1, 2, the channel, and the listing's own
    assert body["group"] == [host.process.pid] * 3
    assert body["in"] == ""


def test_fifty_rounds_leave_no_zombie_no_descriptor_and_no_thread(host):
    host.start("", guarded=False)
    host.exited()
    before, children = descriptors(), psutil.Process().children()
    begin = time.monotonic()
    for round_ in range(50):
        host.start("time.sleep(600)" if round_ % 2 else "", guarded=bool(round_ % 2))
        if round_ % 4 == 0:
            host.exited()
        host.process.stop(0.0 if round_ % 3 else 2.0)
    print(f"50 rounds in {time.monotonic() - begin:.2f} s")
    assert descriptors() == before
    wait_for(lambda: tfos_threads() == [])
    # Zombies are children too; other tests' servers may be running beside.
    assert psutil.Process().children() == children


def test_supervision_costs_little(host):
    host.start("channel.send({}); time.sleep(600)")
    host.message()
    before = time.process_time()
    begin = time.monotonic()
    assert host.process.next_event(2.0) is None
    share = (time.process_time() - before) / (time.monotonic() - begin)
    print(f"idle supervision: {share:.4%} of a core")
    assert share < 0.02
