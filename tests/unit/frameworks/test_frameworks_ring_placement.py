"""Ranks by host, and what Horovod is told of them."""

import pytest

from tfos.frameworks.tensorflow.ring.placement import place_of, ranks_by_host
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey


def cluster(*hosts):
    endpoints = {TaskKey(Role.WORKER, i): Endpoint(host, 1000 + i) for i, host in enumerate(hosts)}
    return tuple(endpoints), ClusterSpec(endpoints)


def test_ranks_of_one_host_are_together_and_the_first_worker_stays_first():
    workers, spec = cluster("b", "a", "b", "a", "c")
    assert [key.index for key in ranks_by_host(workers, spec)] == [0, 2, 1, 3, 4]


def test_local_and_cross_ranks_of_hosts_that_differ_in_size():
    workers, spec = cluster("a", "b", "a", "b", "b")
    ranks = ranks_by_host(workers, spec)
    places = [place_of(key, ranks, spec) for key in ranks]
    assert [p.rank for p in places] == [0, 1, 2, 3, 4]
    assert [p.host for p in places] == ["a", "a", "b", "b", "b"]
    assert [(p.local_rank, p.local_size) for p in places] == [
        (0, 2),
        (1, 2),
        (0, 3),
        (1, 3),
        (2, 3),
    ]
    # Only host b has a third rank: it is alone of its local rank.
    assert [(p.cross_rank, p.cross_size) for p in places] == [
        (0, 2),
        (0, 2),
        (1, 2),
        (1, 2),
        (0, 1),
    ]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_horovod_is_told_all_of_it(count):
    workers, spec = cluster(*["h"] * count)
    last = workers[-1]
    told = place_of(last, workers, spec).environment(Endpoint("driver", 77), "eth0")
    assert told["HOROVOD_RANK"] == told["HOROVOD_LOCAL_RANK"] == str(count - 1)
    assert told["HOROVOD_SIZE"] == told["HOROVOD_LOCAL_SIZE"] == str(count)
    assert (told["HOROVOD_CROSS_RANK"], told["HOROVOD_CROSS_SIZE"]) == ("0", "1")
    assert told["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "driver"
    assert told["HOROVOD_GLOO_RENDEZVOUS_PORT"] == "77"
    assert told["HOROVOD_GLOO_IFACE"] == "eth0"
    assert told["HOROVOD_CONTROLLER"] == told["HOROVOD_CPU_OPERATIONS"] == "gloo"
