"""What a training process hears from its host."""

from __future__ import annotations

import socket
import threading

import pytest

from tfos.fault.processes.channel import ControlChannel
from tfos.launcher.handover.messages import Begin, Positions, Running, to_json
from tfos.launcher.training.host_link import ChannelLink
from tfos.read_plan import FeedPosition
from tfos.topology import Role, TaskKey

WORKERS = (TaskKey(Role.WORKER, 0), TaskKey(Role.WORKER, 1))


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
    channel.send(to_json(Begin("spec.json", WORKERS)))
    assert link.await_begin() == "spec.json"
    assert link.running_workers() == set(WORKERS)


def test_workers_that_ended_before_it_plays_are_not_waited_for(host):
    channel, link = host
    channel.send(to_json(Begin("", WORKERS)))
    channel.send(to_json(Running(())))
    channel.send(to_json(Positions(0, {0: FeedPosition(1, 5)})))
    assert link.read_positions() == {0: FeedPosition(1, 5)}  # so all before it was heard
    link.await_begin()
    assert link.running_workers() == frozenset()
