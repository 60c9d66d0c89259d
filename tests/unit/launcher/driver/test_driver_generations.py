"""A generation's store: open before it is published, closed once the next one is."""

from __future__ import annotations

import pytest

from tfos.errors import RendezvousError
from tfos.launcher.driver.generations import Generations
from tfos.registry.contract import Member
from tfos.registry.memory import InMemoryRun
from tfos.topology import Endpoint, Role, TaskKey

KEY = TaskKey(Role.WORKER, 0)
MEMBERS = {KEY: Member(KEY, Endpoint("h", 1), "h", 2, row_order=7)}


class Store:
    opened: list[Store]

    def __init__(self, opened: list[Store], error: Exception | None = None) -> None:
        opened.append(self)
        self.endpoint = Endpoint("driver", len(opened))
        self.closed = 0
        self._error = error

    def close(self) -> None:
        self.closed += 1
        if self._error is not None:
            raise self._error


@pytest.fixture
def registry():
    session = InMemoryRun().connect()
    session.attend()
    return session


def test_each_generation_has_a_store_of_its_own_and_the_one_before_is_closed(registry):
    opened: list[Store] = []
    generations = Generations(registry, lambda: Store(opened))
    for number in (1, 2, 3):
        generations.publish(number, MEMBERS)
        published = registry.generation(number)
        assert published.store == Endpoint("driver", number)
        assert published.row_orders == {KEY: 7}
        assert [store.closed for store in opened] == [1] * (number - 1) + [0]
    generations.close()
    generations.close()
    assert [store.closed for store in opened] == [1, 1, 1]


def test_the_store_of_what_is_not_published_is_closed_and_the_one_before_stays(registry):
    opened: list[Store] = []
    generations = Generations(registry, lambda: Store(opened))
    generations.publish(1, MEMBERS)
    with pytest.raises(RendezvousError):
        generations.publish(5, MEMBERS)
    assert [store.closed for store in opened] == [0, 1]


def test_a_store_that_does_not_close_hides_nothing(registry):
    opened: list[Store] = []
    generations = Generations(registry, lambda: Store(opened, RuntimeError("stuck")))
    generations.publish(1, MEMBERS)
    generations.publish(2, MEMBERS)
    generations.close()
    assert [store.closed for store in opened] == [1, 1]


def test_an_architecture_without_stores_opens_none(registry):
    generations = Generations(registry, lambda: None)
    generations.publish(1, MEMBERS)
    assert registry.generation(1).store is None
    generations.close()
