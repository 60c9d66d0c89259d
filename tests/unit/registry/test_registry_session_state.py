import queue
import time

import pytest

from tfos.errors import RendezvousConnectionError, SessionLostError
from tfos.registry.contract import Connection
from tfos.registry.delivery import Delivery
from tfos.registry.session_state import SessionState

BOUND_S = 10.0


@pytest.fixture
def delivery():
    delivery = Delivery("test")
    yield delivery
    delivery.close()


@pytest.fixture
def state(delivery):
    state = SessionState("ZooKeeper at h:1", 60.0, delivery)
    state.enter(Connection.CONNECTED)
    yield state
    state.close()


def told(state):
    heard = queue.SimpleQueue()
    state.watch(heard.put)
    assert heard.get(timeout=BOUND_S) is Connection.CONNECTED
    return heard


def test_lost_is_final_although_the_client_connects_anew(state):
    heard = told(state)
    assert state.enter(Connection.LOST, "the server expired it")
    assert not state.enter(Connection.CONNECTED)
    assert not state.enter(Connection.SUSPENDED)
    assert heard.get(timeout=BOUND_S) is Connection.LOST
    with pytest.raises(SessionLostError, match=r"joining: .*h:1 is lost \(the server expired it\)"):
        state.await_connected("joining", time.monotonic() + BOUND_S)
    state.close()
    assert heard.empty()


def test_a_state_entered_twice_is_told_once(state):
    heard = told(state)
    assert not state.enter(Connection.CONNECTED)
    assert state.enter(Connection.SUSPENDED)
    assert not state.enter(Connection.SUSPENDED)
    assert state.enter(Connection.CONNECTED)
    assert heard.get(timeout=BOUND_S) is Connection.SUSPENDED
    assert heard.get(timeout=BOUND_S) is Connection.CONNECTED


def test_silence_for_the_session_time_out_is_loss(delivery):
    state = SessionState("ZooKeeper at h:1", 0.01, delivery)
    state.enter(Connection.CONNECTED)
    heard = told(state)
    state.enter(Connection.SUSPENDED)
    assert heard.get(timeout=BOUND_S) is Connection.SUSPENDED
    assert heard.get(timeout=BOUND_S) is Connection.LOST
    with pytest.raises(SessionLostError, match=r"no server answered for 0\.01 s"):
        state.check_usable("asking")


def test_a_reconnect_stops_the_clock(delivery):
    state = SessionState("ZooKeeper at h:1", 60.0, delivery)
    state.enter(Connection.SUSPENDED)
    clock = state._silence
    state.enter(Connection.CONNECTED)
    assert clock.finished.is_set()


def test_waiting_for_a_connection_ends_at_the_deadline(state):
    state.enter(Connection.SUSPENDED)
    with pytest.raises(RendezvousConnectionError, match=r"joining: ZooKeeper at h:1 .*--zookeeper"):
        state.await_connected("joining", time.monotonic())


@pytest.mark.parametrize("end", ["lose", "close"])
def test_the_end_calls_those_who_asked_also_when_they_ask_late(state, end):
    calls = []
    state.at_end(lambda: calls.append("early"))
    state.at_end(lambda: calls.append("gone"))()
    if end == "lose":
        state.enter(Connection.LOST, "expired")
    else:
        state.close()
    assert calls == ["early"]
    state.at_end(lambda: calls.append("late"))
    assert calls == ["early", "late"]


def test_closed_is_said_before_lost(state):
    state.enter(Connection.LOST, "expired")
    state.close()
    with pytest.raises(RendezvousConnectionError, match="joining: this registry is closed"):
        state.check_usable("joining")
