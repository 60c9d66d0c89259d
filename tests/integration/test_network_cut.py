"""Cutting real processes off the network: silence, and everything as before afterwards."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

import psutil
import pytest
from support.waiting import wait_for

from tfos.fault.drills import network_cut
from tfos.fault.drills.network_cut import cut_off, family_of

ECHO = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)
"""
SOON_S, LONG_S, BOUND_S = 0.5, 3.0, 20.0


@contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """Run a process that answers what it hears; its id and port."""
    argv = [sys.executable, "-c", ECHO]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.pid, int(server.stdout.readline())
        finally:
            server.kill()


@contextmanager
def cut(
    pids: Callable[[], Iterable[int]], seconds: float, spared: Iterable[int] = ()
) -> Iterator[None]:
    """Cut off in another thread; leaving waits until that is over."""
    begun = threading.Event()
    thread = threading.Thread(target=cut_off, args=(pids, seconds, spared, begun))
    thread.start()
    try:
        assert begun.wait(BOUND_S)
        yield
    finally:
        thread.join(BOUND_S)
        assert not thread.is_alive()


def answers(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        connection.sendall(b"ping")
        return connection.recv(100) != b""
    except TimeoutError:
        return False


def test_silence_and_then_everything_goes_on():
    with echo() as (pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        assert answers(client, BOUND_S)
        with cut(lambda: {pid}, LONG_S):
            assert not answers(client, SOON_S)
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
        client.settimeout(BOUND_S)
        # What was sent meanwhile comes late, and not twice.
        assert client.recv(100) == b"ping"
        assert answers(client, BOUND_S)


def test_what_this_process_connects_is_cut_off_before_it_is_connected():
    with echo() as (_, port):
        with cut(lambda: {os.getpid()}, LONG_S):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    socket.create_connection(("127.0.0.1", port), timeout=0.2)
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert answers(client, BOUND_S)


def test_what_it_connects_to_itself_meanwhile_is_healed_too():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setblocking(False)
        with cut(lambda: {os.getpid()}, LONG_S):
            client.connect_ex(server.getsockname())
            assert select.select([], [client], [], SOON_S)[1] == []
        assert select.select([], [client], [], BOUND_S)[1] == [client]


def test_a_unix_socket_is_no_network(tmp_path):
    here = str(tmp_path / "socket")
    with (
        cut(lambda: {os.getpid()}, LONG_S),
        closing(socket.socket(socket.AF_UNIX)) as server,
        closing(socket.socket(socket.AF_UNIX)) as client,
    ):
        server.bind(here)
        server.listen()
        client.connect(here)
        with server.accept()[0] as accepted:
            accepted.sendall(b"pong")
            assert answers(client, BOUND_S)


def test_a_process_that_is_not_ours_to_touch_is_told(caplog):
    with cut(lambda: {os.getpid()}, SOON_S), socket.create_server(("127.0.0.1", 0)):
        pass
    assert "keeps its network" not in caplog.text
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(network_cut, "_PIDFD_GETFD", -1)
        with cut(lambda: {os.getpid()}, LONG_S), socket.create_server(("127.0.0.1", 0)):
            wait_for(lambda: "keeps its network" in caplog.text, LONG_S)
    assert caplog.text.count(f"process {os.getpid()} keeps its network") == 1
    with echo() as (_, port), socket.create_connection(("127.0.0.1", port)) as client:
        assert answers(client, BOUND_S)


def test_what_stays_on_the_machine_goes_on():
    with echo() as (pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        with cut(lambda: {pid}, LONG_S, {os.getpid()}):
            assert answers(client, BOUND_S)
        with cut(lambda: {pid, os.getpid()}, LONG_S):
            assert answers(client, BOUND_S)


def test_a_process_that_ends_meanwhile_does_not_matter():
    with echo() as (pid, port), socket.create_connection(("127.0.0.1", port)) as client:
        assert answers(client, BOUND_S)
        with cut(lambda: {pid}, LONG_S):
            psutil.Process(pid).kill()
            psutil.Process(pid).wait(BOUND_S)


def test_a_family_is_a_process_and_what_it_started():
    with echo() as (pid, _):
        assert family_of(pid) == {pid}
        assert family_of(os.getpid()) >= {pid, os.getpid()}
    assert family_of(pid) == set()
