from __future__ import annotations

import os
import socket
import threading

import pytest

from tfos.errors import InfrastructureError
from tfos.fault.processes.channel import CONTROL_FD_VARIABLE, MAX_MESSAGE_BYTES, ControlChannel


@pytest.fixture
def pair():
    a, b = (ControlChannel(s, send_timeout_s=0.05) for s in socket.socketpair())
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def raw():
    ours, theirs = socket.socketpair()
    channel = ControlChannel(ours, send_timeout_s=0.05)
    yield channel, theirs
    channel.close()
    theirs.close()


def test_messages_arrive_in_order_both_ways(pair):
    a, b = pair
    for i in range(3):
        assert a.send({"i": i, "text": "é\n\u2028"})
        b.send({"back": [i, None, float("inf")]})
    assert [b.receive(1)["i"] for _ in range(3)] == [0, 1, 2]
    assert a.receive(1) == {"back": [0, None, float("inf")]}


def test_nothing_to_receive_is_none(pair):
    assert pair[0].receive(0) is None


def test_a_message_in_pieces_is_put_together(raw):
    channel, peer = raw
    peer.sendall(b'{"a"')
    assert channel.receive(0) is None
    peer.sendall(b':1}\n{"b":2}\n{"c"')
    assert channel.receive(0) == {"a": 1}
    assert channel.receive(0) == {"b": 2}
    assert channel.receive(0) is None


def test_end_of_the_peer_comes_after_its_messages(raw):
    channel, peer = raw
    peer.sendall(b'{"a":1}\n{"half')
    peer.close()
    assert channel.receive(1) == {"a": 1}
    with pytest.raises(EOFError):
        channel.receive(1)
    with pytest.raises(InfrastructureError, match="other end is gone"):
        channel.send({"x": 1})
    with pytest.raises(InfrastructureError, match="other end is gone"):
        channel.send({"x": 1}, droppable=True)


def receive_next(channel: ControlChannel) -> dict:
    """Receive, however many pieces it comes in."""
    while (message := channel.receive(1)) is None:
        pass
    return message


@pytest.mark.parametrize(
    "garbage", [b"hello", b"[1]", b"\xff\xfe", b"", b"3", b"[" * 100_000, b'{"a":1}{"b":2}']
)
def test_garbage_costs_the_message_not_the_channel(raw, garbage):
    channel, peer = raw
    peer.sendall(garbage + b'\n{"ok":1}\n')
    with pytest.raises(InfrastructureError, match="left out"):
        receive_next(channel)
    assert channel.receive(1) == {"ok": 1}


@pytest.mark.parametrize("extra", [0, 1, 5 * MAX_MESSAGE_BYTES])
def test_an_oversize_message_is_skipped_in_bounded_memory(raw, extra, monkeypatch):
    channel, peer = raw
    data = b'{"a":"' + b"x" * (MAX_MESSAGE_BYTES - 8 + extra) + b'"}\n{"ok":1}\n'
    thread = threading.Thread(target=peer.sendall, args=(data,))
    thread.start()
    largest = []
    recv = channel._take_line
    monkeypatch.setattr(
        channel, "_take_line", lambda: (largest.append(len(channel._received)), recv())[1]
    )
    with pytest.raises(InfrastructureError, match="more than 1048576 bytes"):
        receive_next(channel)
    assert receive_next(channel) == {"ok": 1}
    assert max(largest) <= MAX_MESSAGE_BYTES + (1 << 16)
    thread.join()


def test_the_largest_message_passes_and_one_more_byte_is_refused(pair):
    a, b = pair
    a._send_timeout_s = 30
    body = {"a": "x" * (MAX_MESSAGE_BYTES - 9)}
    thread = threading.Thread(target=lambda: a.send(body))
    thread.start()
    assert b.receive(5) == body
    thread.join()
    with pytest.raises(InfrastructureError, match="1048577 bytes"):
        a.send({"a": body["a"] + "x"})


def test_a_message_that_is_not_json_is_the_callers_error(pair):
    with pytest.raises(TypeError):
        pair[0].send({"a": object()})


def test_a_peer_that_does_not_read_costs_a_bounded_wait(pair):
    a, b = pair
    sent = 0

    def send_on():
        nonlocal sent
        while True:
            a.send({"n": sent, "pad": "x" * 10_000})
            sent += 1

    with pytest.raises(InfrastructureError, match=r"did not read for 0\.05 s"):
        send_on()
    assert a.send({"progress": 1}, droppable=True) is False
    # Everything sent, and the one that timed out half-way, arrives whole once the peer reads.
    received = []
    while (message := b.receive(0)) is not None:
        received.append(message["n"])
        a._flush(0.0)
    assert received in (list(range(sent)), list(range(sent + 1)))
    assert a.send({"progress": 2}, droppable=True) is True
    assert b.receive(1) == {"progress": 2}


def test_droppable_messages_are_dropped_whole(pair):
    a, b = pair
    results = [a.send({"n": n, "pad": "x" * 5_000}, droppable=True) for n in range(200)]
    assert not results[-1]
    received = []
    while (message := b.receive(0)) is not None:
        received.append(message["n"])
        a._flush(0.0)
    assert received == [n for n, ok in enumerate(results) if ok]


def test_messages_of_many_threads_do_not_mix(pair):
    a, b = pair
    a._send_timeout_s = 30
    threads = [
        threading.Thread(
            target=lambda t=t: [a.send({"t": t, "n": n, "p": "x" * 3000}) for n in range(200)]
        )
        for t in range(4)
    ]
    for thread in threads:
        thread.start()
    seen = {t: [] for t in range(4)}
    for _ in range(800):
        message = b.receive(5)
        seen[message["t"]].append(message["n"])
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(200)) for numbers in seen.values())


def test_close_wakes_a_receiver_and_is_idempotent(pair):
    a, _ = pair
    ended = []

    def receive():
        try:
            a.receive(30)
        except EOFError:
            ended.append(True)

    thread = threading.Thread(target=receive)
    thread.start()
    a.close()
    thread.join(5)
    assert ended == [True]
    a.close()
    with pytest.raises(EOFError):
        a.receive(0)
    with pytest.raises(InfrastructureError):
        a.send({"a": 1})


def test_from_environment_takes_the_descriptor_and_the_variable():
    ours, theirs = socket.socketpair()
    fd = os.dup(theirs.fileno())
    os.set_inheritable(fd, True)
    theirs.close()
    environ = {CONTROL_FD_VARIABLE: str(fd)}
    channel = ControlChannel.from_environment(environ=environ)
    assert environ == {}
    assert not os.get_inheritable(fd)
    channel.send({"a": 1})
    assert ours.recv(100) == b'{"a":1}\n'
    channel.close()
    ours.close()


@pytest.mark.parametrize("environ", [{}, {CONTROL_FD_VARIABLE: "x"}, {CONTROL_FD_VARIABLE: "987"}])
def test_from_environment_without_a_supervisor_says_so(environ):
    with pytest.raises(InfrastructureError, match="not started by a tfos supervisor"):
        ControlChannel.from_environment(environ=environ)
