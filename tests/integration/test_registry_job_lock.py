"""The lock that keeps one run per job name: real processes, a real ZooKeeper, real faults."""

import logging
import queue
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NotEmptyError
from kazoo.security import make_acl, make_digest_acl

from tfos.errors import (
    AlreadyRunningError,
    ConfigError,
    ExitCode,
    RendezvousConnectionError,
)
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.job_lock import JobLock
from tfos.registry.zookeeper import ZooKeeperRegistry

pytestmark = pytest.mark.zookeeper

PATH = "/prefix/tfos/job/lock"
HOLDER = f"{PATH}/holder"
TIMEOUT_S = 2.0
BOUND_S = 20.0

HOLD = f"""
import sys
from tfos.registry.job_lock import JobLock
holder = {{"run_id": "run-1", "host": "host-7", "pid": "41", "user": "ada",
          "started": "2026-11-21T10:00:00+00:00"}}
with JobLock(sys.argv[1], {PATH!r}, holder=holder, connect_timeout_s=20,
             session_timeout_s=float(sys.argv[2]), on_lost=lambda why: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server():
    with EmbeddedZooKeeper(start_timeout_s=60) as running:
        yield running


@pytest.fixture
def client(server):
    """Somebody else, without any secret."""
    other = KazooClient(server.address)
    other.start(timeout=BOUND_S)
    yield other
    other.stop()
    other.close()


@pytest.fixture
def lock(server):
    def make(path=PATH, hosts=server.address, on_lost=lambda why: None, **options):
        given = {
            "holder": {"run_id": "run-2", "host": "host-8", "pid": "42", "user": "bob"},
            "session_timeout_s": TIMEOUT_S,
            "connect_timeout_s": BOUND_S,
        }
        return JobLock(hosts, path, on_lost=on_lost, **{**given, **options})

    return make


@contextmanager
def holding_process(server, session_timeout_s=20.0):
    """Another driver's process, which holds the lock until it is killed or told to leave."""
    argv = [sys.executable, "-c", HOLD, server.address, str(session_timeout_s)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            # The lock of one that is killed stays as long as its session.
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(BOUND_S)
            process.kill()


def expire(lock):
    """Expire a lock's session: a second connection of it that closes does."""
    client = lock._session._client
    hosts = ",".join(f"{host}:{port}" for host, port in client.hosts)
    twin = KazooClient(hosts, client_id=client.client_id)
    twin.start(timeout=BOUND_S)
    twin.stop()
    twin.close()


class TestHeldElsewhere:
    def test_a_live_holder_is_named_once_the_wait_is_over(self, server, lock, caplog):
        with holding_process(server), caplog.at_level(logging.INFO, "tfos"):
            started = time.monotonic()
            with pytest.raises(AlreadyRunningError) as caught, lock():
                pass
            assert TIMEOUT_S + 2 <= time.monotonic() - started < TIMEOUT_S + 12
        told = "run run-1, on host-7, pid 41, of user ada, since 2026-11-21T10:00:00+00:00"
        assert caught.value.holder == told
        assert told in str(caught.value)
        assert "kill it, or submit under another --name" in str(caught.value)
        assert "its session there is 0x" in str(caught.value)
        assert caught.value.exit_code is ExitCode.ALREADY_RUNNING
        (line,) = (r.getMessage() for r in caplog.records if r.name == "tfos.registry.job_lock")
        assert told in line
        assert "at most 4 s" in line

    def test_a_killed_holder_is_waited_for(self, server, lock):
        with holding_process(server, TIMEOUT_S) as holder:
            holder.kill()
            started = time.monotonic()
            with lock():
                assert time.monotonic() - started < TIMEOUT_S + 12

    def test_a_holder_that_leaves_meanwhile_is_followed_at_once(self, server, lock):
        with holding_process(server) as holder, ThreadPoolExecutor(1) as pool:
            second = lock(session_timeout_s=20.0)
            entering = pool.submit(second.__enter__)
            time.sleep(0.5)
            assert not entering.done()
            holder.stdin.close()
            left = time.monotonic()
            entering.result(BOUND_S)
            assert time.monotonic() - left < 10
            second.__exit__()

    def test_of_many_one_holds_it_at_a_time_and_each_gets_its_turn(self, lock):
        inside, most = [], []
        guard = threading.Lock()

        def enter(number):
            with lock(session_timeout_s=20.0):
                with guard:
                    inside.append(number)
                    most.append(len(inside))
                time.sleep(0.1)
                with guard:
                    inside.remove(number)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(enter, range(6)))
        assert most == [1] * 6

    def test_who_comes_trips_over_nobody_who_leaves(self, lock):
        path = "/very/deep/prefix/tfos/job/lock"

        def come_and_go(number):
            for _ in range(8):
                with lock(path, session_timeout_s=20.0):
                    pass

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(come_and_go, range(4)))

    @pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"host": "\\u001b[2J"}'])
    def test_what_others_wrote_there_is_not_relied_on(self, client, lock, data):
        client.create("/foreign/lock/holder", data, makepath=True)
        with (
            pytest.raises(AlreadyRunningError, match="run unknown, on unknown"),
            lock("/foreign/lock", session_timeout_s=1.0),
        ):
            pass
        client.delete("/foreign/lock", recursive=True)

    @pytest.mark.parametrize("name", ["holder", "other"])
    def test_one_made_to_stay_is_named_with_its_owner_and_the_way_to_remove_it(
        self, client, lock, name
    ):
        acl = [make_digest_acl("mallory", "x", all=True), make_acl("world", "anyone", read=True)]
        client.create("/foreign/lock", acl=acl, makepath=True)
        client.add_auth("digest", "mallory:x")
        client.create(f"/foreign/lock/{name}", acl=acl)
        told = r"no session owns it.*digest:mallory may change it.*deleteall /foreign/lock\)"
        with (
            pytest.raises(AlreadyRunningError, match=told),
            lock("/foreign/lock", session_timeout_s=1.0),
        ):
            pass
        client.delete("/foreign/lock", recursive=True)

    def test_an_empty_one_is_nobodys(self, client, lock):
        client.create(PATH, makepath=True)
        with lock():
            assert client.exists(HOLDER)


class TestHeld:
    def test_anyone_reads_it_and_no_other_changes_it(self, client, lock):
        with lock():
            data, stat = client.get(HOLDER)
            assert data == b'{"run_id":"run-2","host":"host-8","pid":"42","user":"bob"}'
            assert stat.ephemeralOwner != 0
            mine = [make_digest_acl("tfos", "x", all=True)]
            for denied in (
                lambda: client.set(PATH, b"x"),
                lambda: client.set(HOLDER, b"x"),
                lambda: client.create(f"{PATH}/x"),
                lambda: client.set_acls(PATH, mine),
                lambda: client.set_acls(HOLDER, mine),
                lambda: client.delete(HOLDER),
            ):
                with pytest.raises(NoAuthError):
                    denied()
            with pytest.raises(NotEmptyError):
                client.delete(PATH)

    def test_a_holder_whose_node_is_removed_hears_it_at_once(self, client, lock):
        lost = queue.SimpleQueue()
        held = lock(on_lost=lost.put, session_timeout_s=20.0)
        with held:
            # By nobody but itself, or ZooKeeper's super-user.
            held._session.delete_each([HOLDER])
            assert "was removed by somebody else" in lost.get(timeout=BOUND_S)
        assert lost.empty()

    def test_leaving_removes_it_and_its_empty_parents_at_once(self, client, lock):
        held = lock()
        with held:
            assert client.exists(PATH)
        assert client.exists("/prefix/tfos") is None
        with held:
            assert client.exists(PATH)
        assert client.exists("/prefix/tfos") is None

    def test_runs_and_the_lock_leave_each_others_nodes(self, server, client, lock):
        def open_run(number):
            return ZooKeeperRegistry(
                server.address,
                f"/prefix/tfos/job/run-{number}",
                "secret",
                session_timeout_s=10,
                connect_timeout_s=BOUND_S,
            )

        with lock():
            run = open_run(1)
            run.erase()
            run.close()
            assert client.get_children("/prefix/tfos/job") == ["lock"]
            run = open_run(2)
        assert client.get_children("/prefix/tfos/job") == ["run-2"]
        run.erase()
        run.close()
        assert client.exists("/prefix/tfos") is None

    def test_jobs_of_other_names_do_not_meet(self, lock):
        with lock("/prefix/tfos/a/lock"), lock("/prefix/tfos/b/lock"):
            pass

    def test_a_lost_session_is_told_once_and_leaving_spares_the_next_holder(self, client, lock):
        lost = queue.SimpleQueue()
        first = lock(on_lost=lambda why: lost.put((why, threading.current_thread())))
        with first:
            expire(first)
            why, thread = lost.get(timeout=BOUND_S)
            assert "its session has ended" in why
            assert thread is not threading.current_thread()
            with lock():
                first.__exit__()
                assert client.exists(PATH)
        assert lost.empty()

    def test_leaving_tells_nothing(self, lock):
        lost = queue.SimpleQueue()
        with lock(on_lost=lost.put):
            time.sleep(0.1)
        assert lost.empty()

    def test_a_server_that_is_gone_delays_leaving_no_longer_than_agreed(self, lock):
        lost = queue.SimpleQueue()
        with EmbeddedZooKeeper(start_timeout_s=60) as own:
            with lock(hosts=own.address, on_lost=lost.put):
                own.halt()
                left = time.monotonic()
            assert time.monotonic() - left < TIMEOUT_S + 5


class TestConnecting:
    def test_an_unreachable_server_is_given_up_in_time(self, lock):
        started = time.monotonic()
        with (
            pytest.raises(RendezvousConnectionError, match=r"127\.0\.0\.1:1 "),
            lock(hosts="127.0.0.1:1", connect_timeout_s=0.5),
        ):
            pass
        assert time.monotonic() - started < 10

    @pytest.mark.parametrize("path", ["lock", "/a/", "//lock"])
    def test_a_malformed_path_is_a_configuration_error(self, lock, path):
        with pytest.raises(ConfigError, match="must be a path"):
            lock(path)

    def test_a_create_whose_answer_was_lost_holds_the_lock(self, server, client, lock):
        with CuttingProxy(server.address, at=b"run-2") as proxy:
            started = time.monotonic()
            with lock(hosts=proxy.address, session_timeout_s=20.0):
                assert proxy.cuts == 1
                assert client.exists(PATH)
                assert time.monotonic() - started < 20
        assert client.exists(PATH) is None


class CuttingProxy:
    """Passes bytes both ways, and drops the link once after a request that holds `at`."""

    def __init__(self, address, at):
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._at = at
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.cuts = 0

    def __enter__(self):
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        # Shutting it down wakes `accept`; closing it alone would not.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(BOUND_S)
        self._listening.close()

    def _serve(self):
        threads = []
        while True:
            try:
                link, _ = self._listening.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=self._pass, args=(link,)))
            threads[-1].start()
        for thread in threads:
            thread.join(BOUND_S)

    def _pass(self, link):
        with link, socket.create_connection(self._server) as server:
            answers = threading.Thread(target=self._answer, args=(server, link))
            answers.start()
            while request := receive(link):
                if self._at in request and not self.cuts:
                    self.cuts += 1
                    link.shutdown(socket.SHUT_RDWR)
                    server.sendall(request)
                    break
                server.sendall(request)
            # The server makes what it was sent, and then sees the end.
            server.shutdown(socket.SHUT_WR)
            answers.join(BOUND_S)

    @staticmethod
    def _answer(server, link):
        while answer := receive(server):
            with suppress(OSError):
                link.sendall(answer)


def receive(link):
    try:
        return link.recv(65536)
    except OSError:
        return b""
