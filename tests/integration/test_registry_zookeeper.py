"""The ZooKeeper registry and its embedded server against real faults."""

import contextlib
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NotEmptyError
from kazoo.security import make_digest_acl
from support.waiting import wait_for
from support.waiting_host import WaitingHost

from tfos.errors import (
    ConfigError,
    LaunchError,
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    SessionLostError,
)
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.registry.contract import Connection, Generation, Member, StopNotice
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.identity import RunIdentity
from tfos.registry.zookeeper import ZooKeeperRegistry
from tfos.topology import ClusterSpec, Endpoint, Life, Role, TaskKey

pytestmark = pytest.mark.zookeeper

SECRET = "0c7d-the-secret-of-this-run"
ROOT = "/prefix/tfos/job/run-1"
WORKER = TaskKey(Role.WORKER, 0)
BOUND_S = 20.0


@pytest.fixture(scope="module")
def shared_server():
    with EmbeddedZooKeeper(start_timeout_s=60) as server:
        yield server


@pytest.fixture
def own_server():
    """As a run has it; the shared one stands for an ensemble elsewhere."""
    with EmbeddedZooKeeper(identity=RunIdentity.draw(), start_timeout_s=60) as server:
        yield server


@pytest.fixture
def connect():
    sessions = []

    def open_session(server, root=ROOT, secret=SECRET, timeout_s=10.0, **more):
        session = ZooKeeperRegistry(
            server.address,
            root,
            secret,
            session_timeout_s=timeout_s,
            identity=server.identity,
            **{"connect_timeout_s": BOUND_S, **more},
        )
        sessions.append(session)
        return session

    yield open_session
    for session in sessions:
        session.close()


@pytest.fixture
def raw_client(shared_server):
    clients = []

    def open_client(**options):
        client = KazooClient(shared_server.address, **options)
        client.start(timeout=BOUND_S)
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.stop()
        client.close()


def member(index=0, attempt=0):
    return Member(
        TaskKey(Role.WORKER, index), Endpoint("10.0.0.7", 5000 + index), "host-7", 41, attempt
    )


def server_process(server):
    """The JVM: the only child of the lifeline."""
    (jvm,) = psutil.Process(server._process.pid).children()
    assert "java" in jvm.name()
    return jvm


def freeze(process):
    """Stop a process; a busy machine takes its time until every thread of it stands."""
    process.suspend()
    tasks = Path(f"/proc/{process.pid}/task")
    wait_for(lambda: all(stands(task) for task in tasks.iterdir()), BOUND_S)


def stands(task):
    try:
        return (task / "stat").read_text().rpartition(") ")[2].startswith("T")
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return True


def next_until(told, wanted):
    while told.get(timeout=BOUND_S) != wanted:
        pass


def gone(process):
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class TestAccess:
    @pytest.fixture
    def run(self, shared_server, connect):
        run = connect(shared_server)
        run.register(member())
        run.publish_progress(WORKER, {"step": 1})
        run.publish_generation(Generation(1, ClusterSpec({WORKER: Endpoint("a", 1)})))
        run.publish_outcome(1, WORKER, {})
        run.publish_failure(Life(WORKER, 1, 0), {})
        run.order_respawn(Life(WORKER, 1, 1))
        run.attend()
        run.stop(StopNotice("done", "trained"))
        yield run
        run.erase()

    @pytest.mark.parametrize("auth", [None, [("digest", "tfos:guess")]])
    def test_no_other_client_reads_or_writes_any_node(self, run, raw_client, auth):
        owner = raw_client(auth_data=[("digest", f"tfos:{SECRET}")])
        other = raw_client(auth_data=auth)
        paths = [ROOT]
        for path in paths:
            paths += [f"{path}/{name}" for name in owner.get_children(path)]
        assert len(paths) == 1 + 8 + 7
        for path in paths:
            for denied in (
                lambda path=path: other.get(path),
                lambda path=path: other.get_children(path),
                lambda path=path: other.set(path, b"x"),
                lambda path=path: other.set_acls(path, [make_digest_acl("tfos", "x", all=True)]),
                lambda path=path: other.create(f"{path}/x", b"x"),
            ):
                with pytest.raises(NoAuthError):
                    denied()
            with pytest.raises((NoAuthError, NotEmptyError)):
                other.delete(path)

    def test_another_secret_is_told_so(self, run, shared_server, connect):
        with pytest.raises(RendezvousError, match="denies access"):
            connect(shared_server, secret="guess")

    def test_runs_of_other_secrets_share_the_parents(self, run, shared_server, connect, raw_client):
        others = [ROOT.replace("run-1", "run-2"), "/prefix/tfos/other-job/run-1"]
        for root in others:
            other = connect(shared_server, root=root, secret="another")
            other.register(member())
            other.erase()
            assert raw_client().exists(root) is None
        assert set(run.members()) == {WORKER}

    def test_the_secret_is_in_no_log_whatever_the_level(self, shared_server, connect, caplog):
        with caplog.at_level(logging.DEBUG):
            connect(shared_server, root="/logged").register(member())
            assert SECRET not in caplog.text

    def test_late_hosts_do_not_bring_an_erased_run_back(self, shared_server, connect, raw_client):
        late = connect(shared_server, root="/ended/run", create=False)
        assert late.stop_notice() is None
        with pytest.raises(RendezvousClosedError, match="/ended/run"):
            late.register(member())
        assert raw_client().exists("/ended") is None

    def test_the_last_run_of_a_job_removes_the_jobs_node(self, shared_server, connect, raw_client):
        first, second = (connect(shared_server, root=f"/mine/tfos/job/{n}") for n in (1, 2))
        first.erase()
        assert raw_client().get_children("/mine/tfos/job") == ["2"]
        second.erase()
        assert raw_client().exists("/mine/tfos") is None
        # What is above belongs to the user, who named it in --zookeeper.
        assert raw_client().exists("/mine") is not None


class TestConnecting:
    def connect_to(self, hosts, timeout_s):
        return ZooKeeperRegistry(
            hosts, ROOT, SECRET, session_timeout_s=10, connect_timeout_s=timeout_s
        )

    def test_a_port_nobody_listens_on_is_given_up_in_time(self):
        started = time.monotonic()
        with pytest.raises(RendezvousConnectionError, match=r"127\.0\.0\.1:1 .*--zookeeper"):
            self.connect_to("127.0.0.1:1", 0.5)
        assert 0.5 <= time.monotonic() - started < 10

    def test_so_is_a_host_that_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            hosts = f"127.0.0.1:{silent.getsockname()[1]}"
            started = time.monotonic()
            with pytest.raises(RendezvousConnectionError, match=hosts):
                self.connect_to(hosts, 0.5)
            assert 0.5 <= time.monotonic() - started < 10

    @pytest.mark.parametrize("hosts", ["", "host:port:1", "h:x"])
    def test_a_malformed_address_is_a_configuration_error(self, hosts):
        with pytest.raises(ConfigError, match="--zookeeper"):
            self.connect_to(hosts, 0.5)

    def test_a_server_that_starts_late_is_awaited(self, own_server, connect):
        own_server.halt()
        with ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(connect, own_server)
            time.sleep(0.3)
            own_server.restart()
            session = connecting.result()
        assert session.members() == {}

    def test_close_leaves_no_thread(self, shared_server, connect):
        before = set(threading.enumerate())
        session = connect(shared_server)
        session.watch_members(print)
        assert all(thread.daemon for thread in set(threading.enumerate()) - before)
        session.close()
        assert set(threading.enumerate()) <= before


class TestServerFaults:
    def test_a_session_and_its_watches_survive_a_bounced_server(self, own_server, connect):
        driver, host = connect(own_server), connect(own_server)
        members, stops, states = queue.SimpleQueue(), queue.SimpleQueue(), queue.SimpleQueue()
        driver.watch_members(members.put)
        host.watch_connection(states.put)
        host.watch_stop(stops.put)
        host.register(member())
        next_until(members, {WORKER})
        waiting = WaitingHost(host, WORKER)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(2):
                own_server.halt()
                next_until(states, Connection.SUSPENDED)
                # A call made while the server is away is answered once it is back.
                asked = pool.submit(driver.members)
                own_server.restart()
                assert set(asked.result()) == {WORKER}
                next_until(states, Connection.CONNECTED)
        published = Generation(1, ClusterSpec({WORKER: Endpoint("a", 1)}))
        driver.publish_generation(published)
        assert waiting.next(0, BOUND_S) == published
        host.register(member(1))
        next_until(members, {WORKER, TaskKey(Role.WORKER, 1)})
        host.register(member())
        driver.stop(StopNotice("done", "trained"))
        assert stops.get(timeout=BOUND_S).reason == "trained"
        own_server.restart()
        next_until(states, Connection.CONNECTED)
        again = queue.SimpleQueue()
        host.watch_stop(again.put)
        assert again.get(timeout=BOUND_S).reason == "trained"
        time.sleep(0.2)
        assert stops.empty()

    def test_a_session_survives_a_handshake_that_is_never_answered(self, own_server, connect):
        session = connect(own_server, timeout_s=12.0)
        states = queue.SimpleQueue()
        session.watch_connection(states.put)
        own_server.halt()
        # What ZooKeeper does, rarely, to a connection it accepts while it starts.
        host, port = own_server.address.split(":")
        with socket.create_server((host, int(port))) as silent:
            unanswered, _ = silent.accept()
        with unanswered:
            own_server.restart()
            next_until(states, Connection.SUSPENDED)
            assert states.get(timeout=BOUND_S) is Connection.CONNECTED
        assert session.members() == {}

    def test_a_server_whose_machine_is_down_costs_a_part_of_the_session(self, own_server, connect):
        with socket.socket() as down, contextlib.ExitStack() as waiting:
            down.bind(("127.0.0.1", 0))
            down.listen(0)
            # Past its backlog a listener drops what arrives, like a machine that is down.
            for _ in range(2):
                full = waiting.enter_context(socket.socket())
                full.setblocking(False)
                full.connect_ex(down.getsockname())
            ensemble = SimpleNamespace(
                address=f"127.0.0.1:{down.getsockname()[1]},{own_server.address}",
                identity=own_server.identity,
            )
            # Each session tries the servers in an order of its own.
            for _ in range(6):
                connect(ensemble, timeout_s=4.0, connect_timeout_s=3.5).members()

    @pytest.mark.parametrize("fault", ["killed", "frozen"])
    def test_a_server_gone_for_good_loses_the_session_in_time(self, own_server, connect, fault):
        session = connect(own_server, timeout_s=2.0)
        session.register(member())
        states = queue.SimpleQueue()
        session.watch_connection(states.put)
        assert states.get(timeout=BOUND_S) is Connection.CONNECTED
        waiting = WaitingHost(session, WORKER)
        if fault == "killed":
            own_server.halt()
        else:
            freeze(server_process(own_server))
        started = time.monotonic()
        assert states.get(timeout=BOUND_S) is Connection.SUSPENDED
        asked = time.monotonic()
        with pytest.raises((RendezvousConnectionError, SessionLostError)):
            session.members()
        assert time.monotonic() - asked < 10
        assert states.get(timeout=BOUND_S) is Connection.LOST
        assert time.monotonic() - started < 10
        assert waiting.next(0, BOUND_S) is Connection.LOST
        for _ in range(2):
            with pytest.raises(SessionLostError, match="no server answered for 2 s"):
                session.register(member())
        closing = time.monotonic()
        session.close()
        assert time.monotonic() - closing < 10

    def test_a_host_that_was_cut_off_registers_again_once_the_server_is_back(
        self, own_server, connect
    ):
        driver = connect(own_server, timeout_s=30.0)
        driver.attend()
        cut_off = connect(own_server, timeout_s=3.0)
        cut_off.register(member())
        states = queue.SimpleQueue()
        cut_off.watch_connection(states.put)
        jvm = server_process(own_server)
        freeze(jvm)
        # By its own clock: the server has expired nothing yet.
        next_until(states, Connection.LOST)
        jvm.resume()
        again = connect(own_server, timeout_s=10.0)
        again.register(member())
        again.publish_progress(WORKER, {"step": 1})
        gone = queue.SimpleQueue()
        again.watch_driver(lambda: gone.put(True))
        # Time for the server to expire the lost session and drop what is left of it.
        time.sleep(4.0)
        assert set(driver.members()) == {WORKER}
        assert driver.progress() == {WORKER: {"step": 1}}
        assert gone.empty()
        driver.close()
        assert gone.get(timeout=BOUND_S)

    def test_a_call_to_a_frozen_server_ends_in_time(self, own_server, connect):
        session = connect(own_server, timeout_s=2.0)
        session.members()
        jvm = server_process(own_server)
        freeze(jvm)
        started = time.monotonic()
        with pytest.raises((RendezvousConnectionError, SessionLostError)):
            session.members()
        assert time.monotonic() - started < 10
        jvm.resume()

    def test_a_dead_host_is_noticed_and_its_role_taken_over_at_once(self, own_server, connect):
        driver = connect(own_server)
        told = queue.SimpleQueue()
        driver.watch_members(told.put)
        script = (
            "import time\n"
            "from tfos.launcher.handover.registry_address import RegistryAddress\n"
            "from tfos.registry.contract import Member\n"
            "from tfos.topology import *\n"
            "registry = RegistryAddress.from_text(input()).connect()\n"
            "registry.register(Member(TaskKey(Role.WORKER, 0), Endpoint('h', 1), 'h', 1, 0))\n"
            "time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as host:
            address = RegistryAddress(
                own_server.address, ROOT, SECRET, 10.0, BOUND_S, own_server.identity
            )
            host.stdin.write(address.to_text().encode() + b"\n")
            host.stdin.flush()
            next_until(told, {WORKER})
            host.kill()
        rerun = connect(own_server)
        with pytest.raises(RendezvousError, match="attempt 0 of it is live"):
            rerun.register(member(attempt=0))
        rerun.register(member(attempt=1))
        assert driver.members()[WORKER].attempt == 1


class TestEmbeddedServer:
    def test_stop_leaves_no_process_directory_or_port(self):
        server = EmbeddedZooKeeper(start_timeout_s=60)
        server.start()
        port = int(server.address.rpartition(":")[2])
        directory, jvm = server._directory, server_process(server)
        lifeline = psutil.Process(server._process.pid)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert server.running
        server.stop()
        server.stop()
        assert not server.running
        assert not jvm.is_running()
        assert not lifeline.is_running()
        assert not directory.exists()
        with socket.create_server(("127.0.0.1", port)):
            pass

    def test_nothing_is_left_when_the_parent_is_killed(self):
        script = (
            "import threading, time\n"
            "from tfos.registry.embedded import EmbeddedZooKeeper\n"
            "server = EmbeddedZooKeeper(start_timeout_s=60)\n"
            # The thread that starts it ends at once: the server must not end with it.
            "starter = threading.Thread(target=server.start); starter.start(); starter.join()\n"
            "time.sleep(0.3)\n"
            "print(server._directory, server._process.pid, server.running, flush=True)\n"
            "time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
            directory, pid, running = parent.stdout.readline().decode().split()
            lifeline = psutil.Process(int(pid))
            (jvm,) = lifeline.children()
            assert running == "True"
            parent.kill()
        wait_for(lambda: gone(jvm) and gone(lifeline) and not Path(directory).exists(), BOUND_S)

    def test_the_server_dies_with_its_lifeline(self, own_server):
        jvm = server_process(own_server)
        own_server._process.send_signal(signal.SIGKILL)
        own_server._process.wait()
        wait_for(lambda: gone(jvm), BOUND_S)
        assert not own_server.running

    def test_it_listens_on_its_host_only(self, shared_server):
        port = int(shared_server.address.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)

    def test_missing_java_is_explained(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        with pytest.raises(ConfigError, match=r"Java is missing.*Java 17.*JAVA_HOME"):
            EmbeddedZooKeeper().start()
        monkeypatch.delenv("JAVA_HOME")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ConfigError, match="none is on PATH"):
            EmbeddedZooKeeper().start()

    @pytest.mark.parametrize(
        ("body", "told"),
        [("echo boom; exit 3", r"ended at start:\nboom"), ("echo slow; sleep 60", "(?s)1 s.*slow")],
    )
    def test_a_server_that_fails_is_quoted_and_cleaned_up(self, monkeypatch, tmp_path, body, told):
        java = tmp_path / "bin" / "java"
        java.parent.mkdir()
        java.write_text(f"#!/bin/sh\n{body}\n")
        java.chmod(0o700)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        server = EmbeddedZooKeeper(start_timeout_s=1.0)
        with pytest.raises(LaunchError, match=told):
            server.start()
        assert not server.running
        assert list(tmp_path.glob("tfos-zookeeper-*")) == []

    def test_a_port_lost_to_another_process_is_replaced(self, monkeypatch, shared_server):
        from tfos.registry import embedded

        with socket.create_server(("127.0.0.1", 0)) as taken:
            ports = [taken.getsockname()[1], embedded._free_port("127.0.0.1")]
            monkeypatch.setattr(embedded, "_free_port", lambda host: ports.pop(0))
            with EmbeddedZooKeeper(start_timeout_s=60) as server:
                assert ports == []
                assert server.running

    def test_an_address_of_another_host_is_explained(self):
        with pytest.raises(LaunchError, match=r"cannot listen on 203\.0\.113\.1"):
            EmbeddedZooKeeper("203.0.113.1").start()


def test_two_hundred_hosts_get_the_cluster_quickly(shared_server, connect):
    count = 200
    driver = connect(shared_server)
    complete = threading.Event()
    driver.watch_members(lambda keys: complete.set() if len(keys) == count else None)

    def play(index):
        host = connect(shared_server, create=False)
        host.register(member(index))
        generation = WaitingHost(host, TaskKey(Role.WORKER, index)).next(0, BOUND_S)
        host.publish_outcome(1, TaskKey(Role.WORKER, index), {"index": index})
        return len(generation.cluster.endpoints)

    started = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        hosts = [pool.submit(play, index) for index in range(count)]
        assert complete.wait(BOUND_S)
        endpoints = {key: found.endpoint for key, found in driver.members().items()}
        driver.publish_generation(Generation(1, ClusterSpec(endpoints)))
        assert {host.result() for host in hosts} == {count}
    assert time.monotonic() - started < 30
    assert driver.outcomes(1) == {
        TaskKey(Role.WORKER, index): {"index": index} for index in range(count)
    }
