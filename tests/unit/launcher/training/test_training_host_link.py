"""What a training process hears from its host."""

from __future__ import annotations

import socket
import threading

import pytest

from tfos.fault.processes.channel import ControlChannel
from tfos.launcher.training.host_link import ChannelLink
from tfos.topology import Role, TaskKey

WORKERS = ["worker-0", "worker-1"]


@pytest.fixture
def host():
    channel, own = (ControlChannel(s, send_timeout_s=30.0) for s in socket.socketpair())
    link = ChannelLink(own)
    yield channel, link
    channel.close()
    for thread in threading.enumerate():
        if thread.name in ("tfos-control", "tfos-beat"):
            thread.join(30.0)
    own.close()


def test_a_process_knows_the_workers_before_it_plays(host):
    channel, link = host
    channel.send({"type": "begin", "spec": "spec.json", "workers": WORKERS})
    assert link.await_begin() == "spec.json"
    assert link.running_workers() == {TaskKey(Role.WORKER, 0), TaskKey(Role.WORKER, 1)}


def test_workers_that_ended_before_it_plays_are_not_waited_for(host):
    channel, link = host
    channel.send({"type": "begin", "spec": "", "workers": WORKERS})
    channel.send({"type": "running", "workers": []})
    channel.send({"type": "answer", "id": 0, "positions": {}})
    assert link.read_positions() == {}  # so all before it was heard
    link.await_begin()
    assert link.running_workers() == frozenset()
