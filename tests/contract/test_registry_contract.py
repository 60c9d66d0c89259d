"""What `tfos.registry.contract` promises, held by every backend."""

import pickle
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.waiting_host import WaitingHost

from tfos.errors import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    SessionLostError,
)
from tfos.registry.contract import (
    MAX_DOCUMENT_BYTES,
    Connection,
    Generation,
    Member,
    StopNotice,
)
from tfos.topology import ClusterSpec, Endpoint, Life, Role, TaskKey

CHIEF = TaskKey(Role.CHIEF, 0)
WORKER = TaskKey(Role.WORKER, 0)
PS = TaskKey(Role.PS, 12)
BOUND_S = 10.0


def member(key=WORKER, attempt=0, pid=41, port=5000, host="host-7"):
    return Member(
        key, Endpoint("10.0.0.7", port), host, pid, attempt, "exec-3", "http://nm/logs", 1_000_000
    )


def generation(number, port=5000, row_orders=None):
    cluster = ClusterSpec({WORKER: Endpoint("a", port), PS: Endpoint("b", port)})
    return Generation(number, cluster, row_orders or {}, Endpoint("store", 9))


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self):
        self._told = queue.SimpleQueue()
        self.threads = set()

    def __call__(self, value):
        self.threads.add(threading.current_thread())
        self._told.put(value)

    def next(self):
        return self._told.get(timeout=BOUND_S)

    def until(self, wanted):
        """Take what is told up to `wanted`; `queue.Empty` when it never comes."""
        while self.next() != wanted:
            pass

    def silent(self, within_s):
        try:
            return self._told.get(timeout=within_s)
        except queue.Empty:
            return None


@pytest.fixture
def driver(backend):
    return backend.connect()


@pytest.fixture
def host(driver, backend):
    return backend.connect()


class TestRegister:
    def test_members_are_seen_by_others_as_they_were_written(self, driver, host):
        assert driver.members() == {}
        host.register(member())
        host.register(member(CHIEF, attempt=2))
        assert driver.members() == {WORKER: member(), CHIEF: member(CHIEF, attempt=2)}

    def test_registering_again_in_the_same_session_is_success_and_updates(self, driver, host):
        host.register(member())
        host.register(member())
        host.register(member(port=6000))
        assert driver.members() == {WORKER: member(port=6000)}

    @pytest.mark.parametrize("attempt", [0, 1])
    def test_a_live_holder_of_the_same_or_a_newer_attempt_stands(self, driver, backend, attempt):
        holder, other = backend.connect(), backend.connect()
        holder.register(member(attempt=1, pid=77))
        with pytest.raises(RendezvousError, match=r"worker-0.*attempt 1.*host-7.*pid 77"):
            other.register(member(attempt=attempt))
        assert driver.members() == {WORKER: member(attempt=1, pid=77)}

    def test_a_newer_attempt_takes_over_and_watchers_hear_it(self, driver, backend):
        old, new = backend.connect(), backend.connect()
        old.register(member(attempt=0))
        heard = Heard()
        driver.watch_members(heard)
        assert heard.next() == {WORKER}
        new.register(member(attempt=1, port=6000))
        assert heard.next() == {WORKER}
        assert driver.members() == {WORKER: member(attempt=1, port=6000)}
        old.close()
        assert driver.members() == {WORKER: member(attempt=1, port=6000)}

    def test_a_key_left_by_a_closed_session_is_free(self, driver, backend):
        old, new = backend.connect(), backend.connect()
        old.register(member())
        old.close()
        new.register(member(pid=99))
        assert driver.members() == {WORKER: member(pid=99)}

    @pytest.mark.parametrize("other", [{"pid": 78}, {"host": "host-8"}])
    def test_of_one_attempt_another_process_or_host_is_refused(self, driver, backend, other):
        holder, second = backend.connect(), backend.connect()
        holder.register(member(attempt=1, pid=77))
        with pytest.raises(RendezvousError, match=r"attempt 1 of it is live on host-7, pid 77"):
            second.register(member(**{"attempt": 1, "pid": 77, **other}))
        assert driver.members() == {WORKER: member(attempt=1, pid=77)}

    def test_a_host_whose_session_is_lost_registers_again_from_another(self, driver, backend):
        lost, new = backend.connect(), backend.connect()
        lost.register(member())
        lost.expire()
        new.register(member(port=6000))
        assert driver.members() == {WORKER: member(port=6000)}

    def test_also_while_the_server_still_holds_the_lost_sessions_nodes(self, driver, backend):
        lost, new = backend.connect(), backend.connect()
        lost.register(member())
        lost.publish_progress(WORKER, {"step": 1})
        new.register(member(port=6000))
        new.publish_progress(WORKER, {"step": 2})
        # What the server does when it notices at last.
        lost.expire()
        assert driver.members() == {WORKER: member(port=6000)}
        assert driver.progress() == {WORKER: {"step": 2}}
        new.register(member(port=7000))
        assert driver.members() == {WORKER: member(port=7000)}

    def test_a_stopped_run_refuses(self, driver, host):
        driver.stop(StopNotice("failed", "ps-0 died"))
        with pytest.raises(RendezvousClosedError, match=r"worker-0.*ps-0 died") as caught:
            host.register(member())
        assert caught.value.reason == "ps-0 died"
        assert driver.members() == {}

    def test_of_many_registering_one_key_at_once_exactly_one_wins(self, driver, backend):
        sessions = [backend.connect() for _ in range(8)]

        def attempt(pid):
            try:
                sessions[pid].register(member(pid=pid))
            except RendezvousError:
                return None
            return pid

        with ThreadPoolExecutor(8) as pool:
            winners = [pid for pid in pool.map(attempt, range(8)) if pid is not None]
        assert [m.pid for m in driver.members().values()] == winners


class TestGenerations:
    def test_one_already_published_reaches_a_late_host_whole(self, driver, host):
        driver.publish_generation(generation(1, row_orders={WORKER: 2**53 - 1}))
        got = WaitingHost(host, WORKER).next(0, BOUND_S)
        assert got == generation(1, row_orders={WORKER: 2**53 - 1})
        assert list(got.cluster.by_role) == ["ps", "worker"]

    def test_the_latest_reaches_a_host_that_missed_some(self, driver, host):
        for number in (1, 2, 3):
            driver.publish_generation(generation(number, port=5000 + number))
        assert WaitingHost(host, WORKER).next(1, BOUND_S) == generation(3, port=5003)

    def test_each_reaches_a_waiting_host_quickly(self, driver, host):
        waiting = WaitingHost(host, WORKER)
        for number in range(1, 11):
            published = time.monotonic()
            driver.publish_generation(generation(number))
            assert waiting.next(number - 1, BOUND_S) == generation(number)
            assert time.monotonic() - published < 2.0

    @pytest.mark.parametrize("number", [0, 1, 3])
    def test_only_the_next_number_can_be_published(self, driver, host, number):
        driver.publish_generation(generation(1, port=1))
        with pytest.raises(RendezvousError, match=rf"generation {number} .*latest is 1"):
            host.publish_generation(generation(number, port=2))
        assert WaitingHost(host, WORKER).next(0, BOUND_S) == generation(1, port=1)

    def test_the_same_generation_twice_is_another_driver_at_work(self, driver, host):
        driver.publish_generation(generation(1))
        with pytest.raises(RendezvousError, match="another driver"):
            host.publish_generation(generation(1))

    def test_each_published_one_can_be_read_also_after_a_stop(self, driver, host):
        for number in (1, 2):
            driver.publish_generation(generation(number, port=5000 + number))
        driver.stop(StopNotice("done", "trained"))
        assert host.generation(1) == generation(1, port=5001)
        assert host.generation(2) == generation(2, port=5002)

    @pytest.mark.parametrize("number", [0, 2])
    def test_one_that_was_not_published_is_told_from_a_run_that_ended(self, driver, host, number):
        driver.publish_generation(generation(1))
        with pytest.raises(RendezvousError, match=rf"generation {number} .*latest is 1") as caught:
            host.generation(number)
        assert not isinstance(caught.value, RendezvousClosedError)

    def test_a_stop_reaches_a_waiting_host_and_says_why(self, driver, host):
        waiting = WaitingHost(host, WORKER)
        driver.stop(StopNotice("failed", "worker-3 never came"))
        assert waiting.next(0, BOUND_S) == StopNotice("failed", "worker-3 never came")

    def test_losing_the_session_reaches_a_waiting_host(self, host):
        waiting = WaitingHost(host, WORKER)
        host.expire()
        assert waiting.next(0, BOUND_S) is Connection.LOST


class TestOutcomes:
    def test_they_are_kept_by_generation_and_outlive_the_session(self, driver, host):
        assert driver.outcomes(1) == {}
        host.publish_outcome(1, WORKER, {"result": [1, {"a": None}]})
        host.publish_outcome(2, WORKER, {"result": "ä"})
        host.publish_outcome(2, PS, {})
        host.close()
        assert driver.outcomes(1) == {WORKER: {"result": [1, {"a": None}]}}
        assert driver.outcomes(2) == {WORKER: {"result": "ä"}, PS: {}}

    def test_the_first_stands(self, driver, host, backend):
        host.publish_outcome(1, WORKER, {"n": 1})
        host.publish_outcome(1, WORKER, {"n": 2})
        backend.connect().publish_outcome(1, WORKER, {"n": 3})
        assert driver.outcomes(1) == {WORKER: {"n": 1}}

    def test_one_of_the_largest_size_is_kept_and_a_larger_one_refused(self, driver, host):
        text = "x" * (MAX_DOCUMENT_BYTES - len('{"t":""}'))
        host.publish_outcome(1, WORKER, {"t": text})
        assert driver.outcomes(1)[WORKER] == {"t": text}
        with pytest.raises(RendezvousError, match=r"outcome of ps-12 .* 900001 bytes.* 900000"):
            host.publish_outcome(1, PS, {"t": text + "x"})
        assert PS not in driver.outcomes(1)

    def test_what_is_not_json_is_refused(self, host):
        with pytest.raises(RendezvousError, match=r"outcome of worker-0.*not JSON"):
            host.publish_outcome(1, WORKER, {"x": object()})


class TestFailures:
    def test_they_are_kept_by_life_and_outlive_the_session(self, driver, host):
        assert driver.failures() == {}
        host.publish_failure(Life(WORKER, 1, 0), {"exit_code": -9})
        host.publish_failure(Life(WORKER, 1, 1), {"exit_code": 1})
        host.publish_failure(Life(PS, 2, 0), {})
        host.close()
        assert driver.failures() == {
            Life(WORKER, 1, 0): {"exit_code": -9},
            Life(WORKER, 1, 1): {"exit_code": 1},
            Life(PS, 2, 0): {},
        }
        assert driver.failure(Life(WORKER, 1, 1)) == {"exit_code": 1}

    def test_the_first_of_a_life_stands(self, driver, host, backend):
        host.publish_failure(Life(WORKER, 1, 0), {"n": 1})
        host.publish_failure(Life(WORKER, 1, 0), {"n": 2})
        backend.connect().publish_failure(Life(WORKER, 1, 0), {"n": 3})
        assert driver.failures() == {Life(WORKER, 1, 0): {"n": 1}}

    def test_one_that_was_not_written_is_an_error(self, driver, host):
        host.publish_failure(Life(WORKER, 1, 0), {})
        with pytest.raises(RendezvousError, match=r"worker-0\.g1\.r1 has no failure"):
            driver.failure(Life(WORKER, 1, 1))

    def test_one_too_large_names_the_life(self, host):
        with pytest.raises(RendezvousError, match=r"failure of worker-0\.g1\.r0 takes .* bytes"):
            host.publish_failure(Life(WORKER, 1, 0), {"t": "x" * MAX_DOCUMENT_BYTES})

    def test_they_are_told_now_and_at_every_change(self, driver, host):
        heard, late = Heard(), Heard()
        driver.watch_failures(heard)
        assert heard.next() == frozenset()
        host.publish_failure(Life(WORKER, 1, 0), {})
        assert heard.next() == {Life(WORKER, 1, 0)}
        host.publish_failure(Life(PS, 1, 0), {})
        heard.until({Life(WORKER, 1, 0), Life(PS, 1, 0)})
        driver.watch_failures(late)
        assert late.next() == {Life(WORKER, 1, 0), Life(PS, 1, 0)}


class HeardOrders(Heard):
    """A listener of two arguments."""

    def __call__(self, generation, respawn):
        super().__call__((generation, respawn))


class TestOrders:
    def test_generations_and_respawns_are_told_in_order_and_once(self, driver, host):
        heard = HeardOrders()
        host.watch_orders(WORKER, heard)
        assert heard.next() == (0, 0)
        driver.publish_generation(generation(1))
        assert heard.next() == (1, 0)
        driver.order_respawn(Life(WORKER, 1, 1))
        assert heard.next() == (1, 1)
        driver.order_respawn(Life(WORKER, 1, 2))
        assert heard.next() == (1, 2)
        driver.publish_generation(generation(2))
        assert heard.next() == (2, 0)
        driver.order_respawn(Life(WORKER, 2, 1))
        assert heard.next() == (2, 1)
        assert heard.silent(0.2) is None

    def test_a_late_subscriber_hears_the_newest_first(self, driver, host):
        driver.publish_generation(generation(1))
        driver.publish_generation(generation(2))
        for respawn in (1, 2, 3):
            driver.order_respawn(Life(WORKER, 2, respawn))
        heard = HeardOrders()
        host.watch_orders(WORKER, heard)
        assert heard.next() == (2, 3)
        assert heard.silent(0.2) is None

    def test_a_respawn_of_an_older_generation_counts_for_nothing(self, driver, host):
        driver.publish_generation(generation(1))
        driver.order_respawn(Life(WORKER, 1, 4))
        driver.publish_generation(generation(2))
        heard = HeardOrders()
        host.watch_orders(WORKER, heard)
        assert heard.next() == (2, 0)
        driver.order_respawn(Life(WORKER, 1, 5))
        assert heard.silent(0.2) is None

    @pytest.mark.parametrize("older", [Life(WORKER, 1, 9), Life(WORKER, 2, 1), Life(WORKER, 2, 2)])
    def test_an_older_or_equal_order_changes_nothing(self, driver, host, older):
        for number in (1, 2):
            driver.publish_generation(generation(number))
        driver.order_respawn(Life(WORKER, 2, 2))
        driver.order_respawn(older)
        heard = HeardOrders()
        host.watch_orders(WORKER, heard)
        assert heard.next() == (2, 2)

    def test_each_role_hears_its_own_respawns_alone(self, driver, host):
        driver.publish_generation(generation(1))
        worker, ps = HeardOrders(), HeardOrders()
        host.watch_orders(WORKER, worker)
        host.watch_orders(PS, ps)
        assert worker.next() == ps.next() == (1, 0)
        driver.order_respawn(Life(PS, 1, 1))
        assert ps.next() == (1, 1)
        assert worker.silent(0.2) is None

    def test_they_never_go_back_however_fast_they_come(self, driver, host):
        heard = HeardOrders()
        host.watch_orders(WORKER, heard)
        for number in range(1, 21):
            driver.publish_generation(generation(number))
            driver.order_respawn(Life(WORKER, number, number % 3 + 1))
        told = [heard.next()]
        while told[-1] != (20, 3):
            told.append(heard.next())
        assert told == sorted(set(told))
        assert heard.silent(0.2) is None

    def test_an_ended_subscription_hears_no_more(self, driver, host):
        heard, other = HeardOrders(), HeardOrders()
        unsubscribe = host.watch_orders(WORKER, heard)
        host.watch_orders(WORKER, other)
        assert heard.next() == other.next() == (0, 0)
        unsubscribe()
        unsubscribe()
        driver.publish_generation(generation(1))
        assert other.next() == (1, 0)
        assert heard.silent(0.1) is None

    @pytest.mark.parametrize("number", [0, 2])
    def test_one_of_a_generation_that_was_not_published_is_refused(self, driver, number):
        driver.publish_generation(generation(1))
        with pytest.raises(RendezvousError, match=rf"worker-0\.g{number}\.r1 .*latest .* is 1"):
            driver.order_respawn(Life(WORKER, number, 1))


class TestDriver:
    @pytest.fixture
    def gone(self, driver, host):
        driver.attend()
        heard = Heard()
        host.watch_driver(lambda: heard("gone"))
        assert heard.silent(0.2) is None
        return heard

    def test_hosts_hear_once_that_it_closed(self, driver, gone, host, backend):
        driver.close()
        assert gone.next() == "gone"
        backend.connect().attend()
        assert gone.silent(0.2) is None

    def test_hosts_hear_that_its_session_expired(self, driver, gone):
        driver.expire()
        assert gone.next() == "gone"

    def test_hosts_hear_that_the_tree_is_gone(self, driver, gone):
        driver.erase()
        assert gone.next() == "gone"

    def test_one_that_never_attended_or_is_gone_is_told_at_once(self, driver, host):
        never, late = Heard(), Heard()
        host.watch_driver(lambda: never("gone"))
        assert never.next() == "gone"
        driver.attend()
        driver.close()
        host.watch_driver(lambda: late("gone"))
        assert late.next() == "gone"
        assert never.silent(0.1) is None

    def test_an_ended_subscription_hears_nothing(self, driver, host, gone):
        heard = Heard()
        host.watch_driver(lambda: heard("gone"))()
        driver.close()
        assert gone.next() == "gone"
        assert heard.silent(0.1) is None

    def test_attending_again_is_success_and_a_second_driver_is_refused(self, driver, gone, backend):
        driver.attend()
        with pytest.raises(RendezvousError, match="already has a driver"):
            backend.connect().attend()
        assert gone.silent(0.1) is None


class TestProgress:
    def test_the_latest_is_kept_and_goes_with_the_session(self, driver, host):
        for step in range(3):
            host.publish_progress(WORKER, {"step": step})
        host.publish_progress(PS, {"step": 0})
        assert driver.progress() == {WORKER: {"step": 2}, PS: {"step": 0}}
        host.close()
        assert driver.progress() == {}

    def test_a_rerun_takes_it_over_and_the_fenced_host_is_refused(self, driver, backend):
        old, new = backend.connect(), backend.connect()
        old.register(member(attempt=0))
        old.publish_progress(WORKER, {"step": 9})
        new.register(member(attempt=1))
        new.publish_progress(WORKER, {"step": 1})
        with pytest.raises(RendezvousError, match=r"worker-0 is refused"):
            old.publish_progress(WORKER, {"step": 10})
        old.close()
        new.publish_progress(WORKER, {"step": 2})
        assert driver.progress() == {WORKER: {"step": 2}}


class TestStop:
    def test_the_first_notice_stands(self, driver, host):
        assert host.stop_notice() is None
        driver.stop(StopNotice("done", "first"))
        driver.stop(StopNotice("failed", "second"))
        assert host.stop_notice() == StopNotice("done", "first")

    def test_each_listener_hears_it_once_early_or_late(self, driver, host):
        early, late = Heard(), Heard()
        host.watch_stop(early)
        assert early.silent(0.1) is None
        driver.stop(StopNotice("done", "trained"))
        host.watch_stop(late)
        assert early.next() == late.next() == StopNotice("done", "trained")
        driver.stop(StopNotice("done", "again"))
        assert early.silent(0.1) is late.silent(0.0) is None


class TestWatching:
    def test_members_are_told_now_and_at_every_change(self, driver, host):
        host.register(member())
        heard = Heard()
        driver.watch_members(heard)
        assert heard.next() == {WORKER}
        host.register(member(PS))
        heard.until({WORKER, PS})
        host.close()
        heard.until(frozenset())

    def test_outcomes_are_told_now_and_at_every_change(self, driver, host):
        heard = Heard()
        driver.watch_outcomes(3, heard)
        assert heard.next() == frozenset()
        host.publish_outcome(2, WORKER, {})
        host.publish_outcome(3, PS, {})
        assert heard.next() == {PS}
        host.publish_outcome(3, WORKER, {})
        assert heard.next() == {PS, WORKER}

    def test_an_ended_subscription_hears_no_more_while_others_do(self, driver, host):
        ended, other = Heard(), Heard()
        unsubscribe = driver.watch_members(ended)
        driver.watch_members(other)
        assert ended.next() == other.next() == frozenset()
        unsubscribe()
        unsubscribe()
        host.register(member())
        assert other.next() == {WORKER}
        assert ended.silent(0.1) is None

    def test_a_subscription_after_all_had_ended_hears_the_present(self, driver, host):
        first, second = Heard(), Heard()
        unsubscribe = driver.watch_members(first)
        assert first.next() == frozenset()
        unsubscribe()
        host.register(member())
        driver.watch_members(second)
        assert second.next() == {WORKER}
        host.register(member(PS))
        second.until({WORKER, PS})

    def test_listeners_share_one_thread_and_a_failing_one_harms_nobody(self, driver, host, caplog):
        heard = Heard()

        def fail(_):
            raise ZeroDivisionError

        driver.watch_members(fail)
        driver.watch_members(heard)
        driver.watch_outcomes(1, heard)
        driver.watch_connection(heard)
        for _ in range(3):
            heard.next()
        host.register(member())
        assert heard.next() == {WORKER}
        assert len(heard.threads) == 1
        assert threading.current_thread() not in heard.threads
        assert "ZeroDivisionError" in caplog.text

    def test_the_connection_is_told_now_and_when_the_session_is_lost(self, host):
        heard = Heard()
        host.watch_connection(heard)
        assert heard.next() is Connection.CONNECTED
        host.expire()
        heard.until(Connection.LOST)


class TestEnd:
    def test_a_lost_session_takes_its_nodes_and_every_call_says_so(self, driver, host):
        host.register(member())
        host.publish_progress(WORKER, {})
        gone, lost = Heard(), Heard()
        driver.watch_members(gone)
        host.watch_connection(lost)
        host.expire()
        gone.until(frozenset())
        lost.until(Connection.LOST)
        assert driver.progress() == {}
        calls = [
            lambda: host.register(member()),
            lambda: host.publish_outcome(1, WORKER, {}),
            lambda: host.publish_progress(WORKER, {}),
            lambda: host.publish_generation(generation(1)),
            lambda: host.stop(StopNotice("done", "")),
            lambda: host.watch_members(print),
            lambda: host.watch_outcomes(1, print),
            lambda: host.watch_stop(print),
            lambda: host.watch_failures(print),
            lambda: host.watch_orders(WORKER, print),
            lambda: host.watch_driver(print),
            lambda: host.publish_failure(Life(WORKER, 1, 0), {}),
            lambda: host.order_respawn(Life(WORKER, 1, 0)),
            lambda: host.failure(Life(WORKER, 1, 0)),
            lambda: host.generation(1),
            lambda: host.outcomes(1),
            host.attend,
            host.failures,
            host.members,
            host.progress,
            host.stop_notice,
            host.erase,
        ]
        for call in calls:
            with pytest.raises(SessionLostError):
                call()
        with pytest.raises(SessionLostError) as caught:
            host.members()
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_a_lost_session_is_told_of_nothing_more(self, driver, host):
        members, stops, lost = Heard(), Heard(), Heard()
        host.watch_members(members)
        host.watch_stop(stops)
        host.watch_connection(lost)
        assert members.next() == frozenset()
        host.expire()
        lost.until(Connection.LOST)
        driver.register(member())
        driver.stop(StopNotice("done", ""))
        assert (members.silent(0.2), stops.silent(0)) == (None, None)

    def test_only_the_session_told_to_expires_and_once(self, driver, host, backend):
        other, lost, kept = backend.connect(), Heard(), Heard()
        host.register(member())
        other.register(member(PS))
        host.watch_connection(lost)
        other.watch_connection(kept)
        host.expire()
        lost.until(Connection.LOST)
        host.expire()
        assert driver.members() == {PS: member(PS)}
        assert kept.next() is Connection.CONNECTED
        assert (kept.silent(0.2), lost.silent(0)) == (None, None)
        host.close()
        backend.connect().register(member(port=6000))
        assert driver.members() == {PS: member(PS), WORKER: member(port=6000)}

    def test_close_drops_the_ephemeral_nodes_and_ends_calls(self, driver, host):
        host.register(member())
        host.publish_progress(WORKER, {})
        host.publish_outcome(1, WORKER, {})
        host.close()
        host.close()
        assert driver.members() == driver.progress() == {}
        assert driver.outcomes(1) == {WORKER: {}}
        with pytest.raises(RendezvousConnectionError, match="closed"):
            host.members()

    def test_erase_removes_everything_and_late_hosts_learn_that_the_run_ended(self, driver, host):
        host.register(member())
        host.publish_progress(WORKER, {})
        driver.publish_generation(generation(1))
        host.publish_outcome(1, WORKER, {})
        host.publish_outcome(0, PS, {})
        host.publish_failure(Life(WORKER, 1, 0), {})
        host.watch_orders(WORKER, lambda *_: None)
        driver.order_respawn(Life(PS, 1, 1))
        driver.attend()
        driver.stop(StopNotice("done", "trained"))
        driver.erase()
        driver.erase()
        assert driver.members() == driver.progress() == {}
        assert driver.outcomes(1) == driver.outcomes(0) == driver.failures() == {}
        assert driver.stop_notice() is None
        late = [
            lambda: host.register(member(PS)),
            lambda: host.publish_outcome(1, PS, {}),
            lambda: host.publish_progress(PS, {}),
            lambda: host.publish_failure(Life(PS, 1, 0), {}),
            lambda: host.generation(1),
            lambda: host.watch_orders(WORKER, print),
            lambda: host.order_respawn(Life(PS, 1, 2)),
            host.attend,
            lambda: host.publish_generation(generation(2)),
            lambda: host.stop(StopNotice("done", "")),
        ]
        for call in late:
            with pytest.raises(RendezvousClosedError):
                call()
