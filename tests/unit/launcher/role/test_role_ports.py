"""Which peers a host reaches, and what is said of those that it does not."""

from __future__ import annotations

import socket

from tfos.launcher.role.ports import describe_unreached, unreached
from tfos.topology import Endpoint, Role, TaskKey

PS = tuple(TaskKey(Role.PS, index) for index in range(8))


def test_peers_that_listen_are_reached_and_the_others_named_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as open_, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        peers = {
            PS[0]: Endpoint("127.0.0.1", open_.getsockname()[1]),
            PS[1]: Endpoint("127.0.0.1", bound.getsockname()[1]),
            PS[2]: Endpoint("no.such.host.invalid", 1),
        }
        failed = unreached(peers, 2.0)
    assert failed[PS[1]] == "connection refused"
    assert set(failed) == {PS[1], PS[2]}
    text = describe_unreached(peers, failed)
    assert f"ps-1 at 127.0.0.1:{peers[PS[1]].port} (connection refused)" in text
    assert "ps-2 at no.such.host.invalid:1 (" in text


def test_a_few_of_many_are_named():
    peers = {key: Endpoint("10.0.0.1", 5000 + key.index) for key in PS}
    text = describe_unreached(peers, dict.fromkeys(PS, "no answer"))
    assert text.count("no answer") == 5
    assert text.endswith("and 3 more cannot be reached from this host")
    assert "something else" in describe_unreached(peers, {})


def test_nobody_to_reach():
    assert unreached({}, 1.0) == {}
