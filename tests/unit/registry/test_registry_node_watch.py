"""A watched node is read by several threads; what its listeners are told never goes back."""

import queue
import threading

import pytest

from tfos.registry.delivery import Delivery
from tfos.registry.node_watch import NodeWatch

BOUND_S = 5.0


class Read:
    """A read whose answer is there as soon as it is submitted, as kazoo's may be."""

    def __init__(self, value, link=None):
        self.value = value
        self._link = link
        self.submitted = threading.Event()

    def rawlink(self, callback):
        self.submitted.set()
        if self._link is not None:
            assert self._link.wait(BOUND_S)
        callback(self)


@pytest.fixture
def delivery():
    delivery = Delivery("test-delivery")
    yield delivery
    delivery.close()


def test_a_read_linked_late_is_not_told_after_a_newer_one(delivery):
    may_link = threading.Event()
    first, older, newer = Read("first"), Read("older", link=may_link), Read("newer")
    reads = iter([first, older, newer])
    watch = NodeWatch(lambda _: next(reads), lambda read: read.value, delivery)
    told = queue.SimpleQueue()
    watch.subscribe(told.put)
    assert told.get(timeout=BOUND_S) == "first"
    late = threading.Thread(target=watch.refresh)
    late.start()
    assert older.submitted.wait(BOUND_S)
    watch.refresh()
    assert told.get(timeout=BOUND_S) == "newer"
    may_link.set()
    late.join(BOUND_S)
    again = queue.SimpleQueue()
    watch.subscribe(again.put)
    assert again.get(timeout=BOUND_S) == "newer"
    assert told.empty()
