"""What somebody without the run's identity can do to its ZooKeeper: nothing, by any of these."""

import socket
import ssl
import struct
import subprocess
import sys
from contextlib import ExitStack

import psutil
import pytest
from support.nobody import BECOME_NOBODY

from tfos.registry.contract import Connection, Member
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.identity import RunIdentity
from tfos.registry.zookeeper import ZooKeeperRegistry
from tfos.topology import Endpoint, Role, TaskKey

pytestmark = pytest.mark.zookeeper

ROOT = "/tfos/job/run"
WORKER = TaskKey(Role.WORKER, 0)
BOUND_S = 30.0
FLOOD = 400


@pytest.fixture(scope="module")
def server():
    with EmbeddedZooKeeper(identity=RunIdentity.draw(), start_timeout_s=60) as running:
        yield running


@pytest.fixture(scope="module")
def flood(server):
    """Connections that say nothing; open while the other attacks go on."""
    host, port = server.address.split(":")
    with ExitStack() as held:
        yield [
            held.enter_context(socket.create_connection((host, int(port)), timeout=BOUND_S))
            for _ in range(FLOOD)
        ]


@pytest.fixture(scope="module")
def run(server, flood):
    with ExitStack() as held:
        session = connect(server)
        held.callback(session.close)
        session.register(Member(WORKER, Endpoint("h", 1), "h", 1))
        yield session


def connect(server):
    return ZooKeeperRegistry(
        server.address,
        ROOT,
        "secret",
        session_timeout_s=30,
        connect_timeout_s=BOUND_S,
        identity=server.identity,
    )


def plain(address):
    return socket.create_connection(address, timeout=5.0)


def anonymous(address):
    """By TLS, with no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain(address))


def stranger(address):
    """By TLS, with the certificate of another run, which trusts whatever answers."""
    context = RunIdentity.draw().client_context()
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain(address))


def frame(body):
    return struct.pack(">i", len(body)) + body


def opening(session_id=0, password=bytes(16)):
    """The request that begins, or takes over, a session."""
    body = struct.pack(">iqiq", 0, 0, 30_000, session_id) + struct.pack(">i", 16) + password
    return frame(body + b"\0")


def derived_password(session_id):
    """The password that ZooKeeper gives a session: java.util.Random, seeded with no secret."""
    seed, password = (session_id ^ 0xB3415C00 ^ 0x5DEECE66D) % 2**48, b""
    for _ in range(4):
        seed = (seed * 0x5DEECE66D + 0xB) % 2**48
        password += struct.pack("<I", seed >> 16)
    return password


def answer(connect, server, request):
    """What the server says to a request; nothing when it refuses the connection."""
    host, port = server.address.split(":")
    try:
        with connect((host, int(port))) as link:
            link.sendall(request)
            return link.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("client", [plain, anonymous, stranger])
class TestAnyClient:
    def test_nobody_takes_over_a_session(self, server, run, client):
        session_id, password = run._session._client.client_id
        # The attack is a real one.
        assert derived_password(session_id) == password
        states = []
        unsubscribe = run.watch_connection(states.append)
        assert answer(client, server, opening(session_id, password)) == b""
        assert set(run.members()) == {WORKER}
        assert states == [Connection.CONNECTED]
        unsubscribe()

    def test_nobody_opens_one_to_read_create_or_set_the_acl_of_anything(self, server, run, client):
        assert answer(client, server, opening()) == b""

    def test_nobody_is_told_of_the_server(self, server, run, client):
        assert answer(client, server, b"srvr" + b"\n" * 60) == b""


def test_the_holder_of_the_identity_is_answered(server):
    def client(address):
        return server.identity.client_context().wrap_socket(plain(address))

    assert len(answer(client, server, opening())) > 16
    assert b"Zookeeper version" in answer(client, server, b"srvr")


def test_another_user_of_the_host_finds_the_key_nowhere(server, run):
    (jvm,) = psutil.Process(server._process.pid).children()
    places = [server._directory, server._directory / "identity.pem", f"/proc/{jvm.pid}/environ"]
    script = f"""
import os, sys
{BECOME_NOBODY}
for place in sys.argv[1:]:
    try:
        os.open(place, os.O_RDONLY)
        print("opened", place)
    except PermissionError:
        pass
"""
    argv = [sys.executable, "-c", script, *map(str, places)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == ""
    line = " ".join([*jvm.cmdline(), *psutil.Process(server._process.pid).cmdline()])
    assert server.identity.key.splitlines()[1] not in line


def test_silent_connections_are_ended_and_fill_no_disk(server, run, flood):
    assert [link.recv(1) for link in flood] == [b""] * FLOOD
    assert (server._directory / "server.log").stat().st_size < 30_000
    assert set(run.members()) == {WORKER}
