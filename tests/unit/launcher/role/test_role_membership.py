"""A role host's registration: what it hears, and how it comes back after a lost session."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import pytest

from tfos.errors import RendezvousClosedError, RendezvousConnectionError, RendezvousError
from tfos.launcher.role import membership as host_session_module
from tfos.launcher.role.membership import (
    DriverGone,
    HostSession,
    Notice,
    Ordered,
    PeersDone,
    SessionLost,
    Stopped,
)
from tfos.registry.contract import Generation, Member, Registry, StopNotice
from tfos.registry.memory import InMemoryRegistry, InMemoryRun
from tfos.topology import ClusterSpec, Endpoint, Life, Role, TaskKey

KEY, PEER = TaskKey(Role.WORKER, 0), TaskKey(Role.WORKER, 1)
MEMBER = Member(KEY, Endpoint("h", 5000), "h", 41, task=7)
BOUND_S = 10.0


@pytest.fixture
def run() -> InMemoryRun:
    return InMemoryRun()


@pytest.fixture
def driver(run: InMemoryRun) -> Iterator[InMemoryRegistry]:
    session = run.connect()
    session.attend()
    yield session
    session.close()


@pytest.fixture
def open_session(run, driver, monkeypatch) -> Iterator[Callable[..., HostSession]]:
    monkeypatch.setattr(host_session_module, "RETRY_EVERY_S", 0.01)
    made: list[HostSession] = []

    def make(connect: Callable[[], Registry] = run.connect, patience_s=BOUND_S) -> HostSession:
        made.append(HostSession(connect, MEMBER, patience_s=patience_s))
        return made[-1]

    yield make
    for session in made:
        session.close()


def next_notice(session: HostSession) -> Notice:
    return session.notices.get(timeout=BOUND_S)


def generation(number: int) -> Generation:
    return Generation(number, ClusterSpec({KEY: MEMBER.endpoint}))


def test_it_is_a_member_from_joining_until_closing(open_session, driver):
    session = open_session()
    assert (session.connected, driver.members()) == (False, {})
    session.join()
    assert (session.connected, driver.members()) == (True, {KEY: MEMBER})
    session.close()
    session.close()
    assert (session.connected, driver.members()) == (False, {})


def test_orders_of_its_own_role_are_heard_in_order(open_session, driver):
    session = open_session()
    session.join()
    assert next_notice(session) == Ordered(0, 0)
    driver.publish_generation(generation(1))
    assert next_notice(session) == Ordered(1, 0)
    driver.order_respawn(Life(PEER, 1, 4))
    driver.order_respawn(Life(KEY, 1, 1))
    assert next_notice(session) == Ordered(1, 1)
    driver.publish_generation(generation(2))
    assert next_notice(session) == Ordered(2, 0)


def test_the_drivers_stop_and_its_end_are_heard(open_session, driver):
    session = open_session()
    session.join()
    assert next_notice(session) == Ordered(0, 0)
    driver.stop(StopNotice("done", "trained"))
    assert next_notice(session) == Stopped(StopNotice("done", "trained"))
    driver.close()
    assert next_notice(session) == DriverGone()


def test_peers_that_are_done_are_heard_until_one_stops_listening(open_session, driver):
    session = open_session()
    session.join()
    assert next_notice(session) == Ordered(0, 0)
    driver.publish_generation(generation(1))
    assert next_notice(session) == Ordered(1, 0)
    unsubscribe = session.watch_peers(1)
    assert next_notice(session) == PeersDone(1, frozenset())
    driver.publish_outcome(1, PEER, {})
    assert next_notice(session) == PeersDone(1, frozenset({PEER}))
    unsubscribe()
    driver.publish_outcome(1, KEY, {})
    driver.publish_generation(generation(2))
    assert next_notice(session) == Ordered(2, 0)


def test_a_silent_registry_is_no_connection_but_no_loss(open_session, run, driver):
    session = open_session()
    session.join()
    assert next_notice(session) == Ordered(0, 0)
    assert isinstance(session.registry, InMemoryRegistry)
    run.suspend(session.registry)
    driver.publish_generation(generation(1))
    # Told in order, so what came before has been heard as well.
    assert next_notice(session) == Ordered(1, 0)
    assert not session.connected
    run.resume(session.registry)
    driver.publish_generation(generation(2))
    assert next_notice(session) == Ordered(2, 0)
    assert session.connected


def test_it_comes_back_after_a_lost_session_as_the_same_member(open_session, driver):
    session = open_session()
    session.join()
    driver.publish_generation(generation(1))
    assert [next_notice(session) for _ in range(2)] == [Ordered(0, 0), Ordered(1, 0)]
    session.expire()
    assert next_notice(session) == SessionLost()
    assert not session.connected
    assert driver.members() == {}
    driver.publish_generation(generation(2))
    session.rejoin()
    assert session.connected
    assert driver.members() == {KEY: MEMBER}
    # What was ordered meanwhile is heard, and nothing of the lost session any more.
    assert next_notice(session) == Ordered(2, 0)
    driver.order_respawn(Life(KEY, 2, 1))
    assert next_notice(session) == Ordered(2, 1)
    with pytest.raises(queue.Empty):
        session.notices.get_nowait()


class Unreliable:
    """Opens sessions of a run, but not the first times it is asked to again."""

    def __init__(self, run: InMemoryRun, refusals: int) -> None:
        self._run = run
        self._left = refusals
        self.asked = 0

    def __call__(self) -> Registry:
        self.asked += 1
        if self.asked > 1 and self._left > 0:
            self._left -= 1
            raise RendezvousConnectionError("nobody answers")
        return self._run.connect()


def test_it_tries_again_to_come_back(open_session, run, driver):
    connect = Unreliable(run, refusals=3)
    session = open_session(connect)
    session.join()
    session.expire()
    session.rejoin()
    assert connect.asked == 5
    assert driver.members() == {KEY: MEMBER}


def test_it_gives_up_when_its_patience_ends(open_session, run, driver):
    connect = Unreliable(run, refusals=1_000_000)
    session = open_session(connect, patience_s=0.1)
    session.join()
    session.expire()
    with pytest.raises(RendezvousConnectionError, match="nobody answers"):
        session.rejoin()
    assert connect.asked >= 2
    assert not session.connected


def test_who_has_been_replaced_meanwhile_does_not_come_back(open_session, run, driver):
    session = open_session(patience_s=0.05)
    session.join()
    session.expire()
    newer = run.connect()
    newer.register(Member(KEY, Endpoint("other", 1), "other", 99, attempt=1))
    with pytest.raises(RendezvousError, match="attempt 1 of it is live on other"):
        session.rejoin()
    assert driver.members()[KEY].host == "other"
    newer.close()


def test_a_run_that_ended_meanwhile_is_not_waited_for(open_session, driver):
    session = open_session()
    session.join()
    session.expire()
    driver.stop(StopNotice("failed", "enough"))
    with pytest.raises(RendezvousClosedError, match="enough"):
        session.rejoin()
