from __future__ import annotations

import threading

from tfos import wire
from tfos.errors import ExitCode
from tfos.fault.failures.exits import failure_from_exit
from tfos.fault.failures.record import Cause, Failure
from tfos.fault.processes.events import ControlMessage, Exited, Mailbox

EXIT = Exited(7, 0, 1.0)


def test_events_come_in_order_and_the_exit_last():
    box = Mailbox()
    box.put_message(ControlMessage({"n": 1}))
    box.put_message(ControlMessage({"n": 2}))
    box.put_exit(EXIT)
    taken = [box.take(0) for _ in range(4)]
    assert taken == [ControlMessage({"n": 1}), ControlMessage({"n": 2}), EXIT, None]


def test_a_full_mailbox_holds_the_sender_until_one_is_taken():
    box = Mailbox(capacity=2)
    done = threading.Event()

    def put():
        for n in range(3):
            box.put_message(ControlMessage({"n": n}))
        done.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert not done.wait(0.05)
    assert box.take(1) == ControlMessage({"n": 0})
    assert done.wait(5)
    thread.join()


def test_nothing_waits_once_the_bound_is_lifted_or_the_exit_put():
    box = Mailbox(capacity=0)
    results = []
    thread = threading.Thread(target=lambda: results.append(box.put_message(ControlMessage({}))))
    thread.start()
    box.lift_bound()
    thread.join(5)
    box.put_exit(EXIT)
    assert results == [True]
    assert box.put_message(ControlMessage({})) is False
    assert [box.take(0), box.take(0), box.take(0)] == [ControlMessage({}), EXIT, None]


def failure(returncode: int, **options) -> Failure:
    exited = Exited(42, returncode, 12.5, ("first", "last"))
    return failure_from_exit("worker-3", exited, host="h1", step=17, **options)


def test_a_signal_is_the_death_of_the_process():
    record = failure(-9)
    assert record.cause is Cause.PROCESS_DEATH
    assert (record.exit_code, record.signal_name) == (None, "SIGKILL")
    assert record.message == "the training process was killed by SIGKILL"
    assert "memory" in record.hint
    assert (record.key, record.host, record.pid, record.step) == ("worker-3", "h1", 42, 17)
    assert record.time == 12.5
    assert record.last_lines == ("first", "last")
    assert wire.from_json(Failure, wire.to_json(record)) == record


def test_a_signal_passed_on_as_an_exit_code_is_too():
    assert failure(137).cause is Cause.PROCESS_DEATH
    assert "memory" in failure(137).hint


def test_an_exit_code_is_the_users_code():
    record = failure(3)
    assert record.cause is Cause.USER_CODE
    assert record.cause.exit_code == ExitCode.USER_CODE
    assert (record.exit_code, record.signal_name) == (3, None)


def test_success_without_a_word_is_told_as_such():
    assert "exited with code 0 before it reported" in failure(0).message


def test_the_caller_may_know_better():
    assert failure(3, cause=Cause.DATA).cause is Cause.DATA
