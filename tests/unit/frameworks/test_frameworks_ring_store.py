"""The ring's store speaks what Gloo asks for, on one address, and is gone when closed."""

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfos.frameworks.tensorflow.ring.store import RingStore


@pytest.fixture
def store():
    opened = RingStore("127.0.0.1")
    yield opened
    opened.close()


def ask(store, method, path, body=None):
    connection = http.client.HTTPConnection(*store.endpoint, timeout=5)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_value_is_handed_out_as_it_was_left(store):
    assert ask(store, "GET", "/global_/0") == (404, b"")
    assert ask(store, "PUT", "/global_/0", b"\x00\xffaddress") == (200, b"")
    assert ask(store, "GET", "/global_/0") == (200, b"\x00\xffaddress")
    assert ask(store, "GET", "/local_/0") == (404, b"")


def test_what_one_rank_has_read_is_there_for_the_others(store):
    ask(store, "PUT", "/global_/0", b"x")
    assert ask(store, "DELETE", "/global_/0")[0] == 200
    assert ask(store, "GET", "/global_/0") == (200, b"x")


def test_a_value_too_large_is_refused(store):
    assert ask(store, "PUT", "/global_/0", b"x" * 70_000)[0] == 413
    assert ask(store, "GET", "/global_/0")[0] == 404


def test_many_ranks_meet_at_once(store):
    with ThreadPoolExecutor(32) as pool:
        put = pool.map(lambda i: ask(store, "PUT", f"/global_/{i}", str(i).encode()), range(200))
        assert {status for status, _ in put} == {200}
        got = pool.map(lambda i: ask(store, "GET", f"/global_/{i}"), range(200))
        assert [value for _, value in got] == [str(i).encode() for i in range(200)]


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 100, b"GET", b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_garbage_harms_nobody(store, garbage):
    with socket.create_connection(store.endpoint, timeout=5) as connection:
        connection.sendall(garbage)
    assert ask(store, "PUT", "/global_/0", b"x")[0] == 200


def test_it_listens_on_its_address_alone_and_frees_the_port():
    store = RingStore("127.0.0.1")
    port = store.endpoint.port
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), 5):
        pass
    store.close()
    store.close()
    with socket.create_server(("127.0.0.1", port)):
        pass
