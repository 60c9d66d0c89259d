"""Ports for servers: different, free, and none that a connection could take meanwhile."""

import socket

import pytest

from tfos.errors import LaunchError
from tfos.testing import ports


def test_are_different_and_free_and_below_those_of_connections():
    found = ports.free_ports(30)
    assert len(set(found)) == 30
    assert all(ports._LOWEST <= port < ports._first_ephemeral() for port in found)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] >= ports._first_ephemeral()
    for port in found:
        socket.create_server(("127.0.0.1", port)).close()


def test_leaves_out_one_that_is_taken(monkeypatch):
    one = ports.free_ports(1)[0]
    monkeypatch.setattr(ports, "_LOWEST", one)
    monkeypatch.setattr(ports, "_first_ephemeral", lambda: one + 1)
    with socket.create_server(("127.0.0.1", one)):
        assert one not in ports.free_ports(20)


def test_too_many_are_refused():
    with pytest.raises(LaunchError, match=r"no 100000 ports of 127\.0\.0\.1"):
        ports.free_ports(100_000)
