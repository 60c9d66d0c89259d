"""A registry session against three real ZooKeeper servers of which some die."""

import queue

import pytest
from support.ensemble import Ensemble
from support.waiting import wait_for
from support.waiting_host import WaitingHost

from tfos.registry.contract import Connection, Generation, Member
from tfos.registry.job_lock import JobLock
from tfos.registry.zookeeper import ZooKeeperRegistry
from tfos.topology import ClusterSpec, Endpoint, Life, Role, TaskKey

pytestmark = pytest.mark.zookeeper

WORKER, PS = TaskKey(Role.WORKER, 0), TaskKey(Role.PS, 0)
BOUND_S = 30.0


@pytest.fixture
def ensemble(tmp_path):
    with Ensemble(3, tmp_path) as servers:
        yield servers


class Sessions:
    """A driver's and a role host's, all that they hear, and what must hold whatever dies."""

    def __init__(self, ensemble):
        self.ensemble = ensemble
        self.driver, self.host = (self.connect() for _ in range(2))
        self.members, self.failures, self.orders = (queue.SimpleQueue() for _ in range(3))
        self.states = []
        self.gone = queue.SimpleQueue()
        self.generation = 0
        self.driver.attend()
        self.host.register(self.member(WORKER))
        self.driver.watch_members(self.members.put)
        self.driver.watch_failures(self.failures.put)
        self.host.watch_orders(WORKER, lambda *order: self.orders.put(order))
        self.waiting = WaitingHost(self.host, WORKER)
        self.host.watch_driver(lambda: self.gone.put(True))
        for session in (self.driver, self.host):
            session.watch_connection(lambda state: self.states.append(state))

    def connect(self):
        return ZooKeeperRegistry(
            self.ensemble.hosts,
            "/tfos/job/run",
            "secret",
            session_timeout_s=10,
            connect_timeout_s=BOUND_S,
        )

    def member(self, key):
        return Member(key, Endpoint("h", 1), "h", 1)

    def server_of(self, session):
        link = session._session._client._connection._socket
        return self.ensemble.index_of(link.getpeername()[1])

    def check_all_is_heard(self):
        """Publish, in each direction, and hear it through the watches set at the start."""
        self.generation += 1
        cluster = ClusterSpec({WORKER: Endpoint("h", self.generation)})
        published = Generation(self.generation, cluster)
        self.driver.publish_generation(published)
        assert self.waiting.next(self.generation - 1, BOUND_S) == published
        self.until(self.orders, (self.generation, 0))
        self.driver.order_respawn(Life(WORKER, self.generation, 1))
        self.until(self.orders, (self.generation, 1))
        self.host.publish_failure(Life(WORKER, self.generation, 0), {})
        failed = {Life(WORKER, number + 1, 0) for number in range(self.generation)}
        self.until(self.failures, failed)
        other = TaskKey(Role.PS, self.generation)
        self.host.register(self.member(other))
        while other not in self.members.get(timeout=BOUND_S):
            pass
        # The ephemeral nodes of before are there: the session is the same one.
        assert {WORKER, other} <= set(self.driver.members())
        assert Connection.LOST not in self.states
        assert self.gone.empty()

    @staticmethod
    def until(told, wanted):
        while told.get(timeout=BOUND_S) != wanted:
            pass

    def await_bounce(self, began):
        wait_for(lambda: Connection.CONNECTED in self.states[began:], BOUND_S)
        assert Connection.SUSPENDED in self.states[began:]


@pytest.fixture
def sessions(ensemble):
    opened = Sessions(ensemble)
    opened.check_all_is_heard()
    assert set(opened.states) == {Connection.CONNECTED}
    yield opened
    opened.host.close()
    opened.driver.close()


def test_a_session_moves_on_from_a_server_that_dies(ensemble, sessions):
    began = len(sessions.states)
    killed = sessions.server_of(sessions.host)
    ensemble.kill(killed)
    sessions.await_bounce(began)
    sessions.check_all_is_heard()
    assert sessions.server_of(sessions.host) != killed


def test_sessions_survive_the_death_of_the_leader(ensemble, sessions):
    began = len(sessions.states)
    leader = ensemble.leader()
    ensemble.kill(leader)
    # The followers drop their clients until they have elected another.
    sessions.await_bounce(began)
    sessions.check_all_is_heard()
    assert ensemble.leader() != leader


def test_sessions_and_a_lock_survive_restarting_every_server_in_turn(ensemble, sessions):
    lost = queue.SimpleQueue()
    lock = JobLock(
        ensemble.hosts,
        "/tfos/job/lock",
        holder={"run_id": "run"},
        session_timeout_s=10,
        connect_timeout_s=BOUND_S,
        on_lost=lost.put,
    )
    with lock:
        for index in range(3):
            ensemble.kill(index)
            sessions.check_all_is_heard()
            ensemble.restart(index)
        sessions.check_all_is_heard()
        assert lost.empty()
        assert Connection.SUSPENDED in sessions.states
