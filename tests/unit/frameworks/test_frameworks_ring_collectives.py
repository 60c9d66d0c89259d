"""Which of a program's operations count as an exchange between ranks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfos.frameworks.tensorflow.ring.collectives import Collectives


@pytest.fixture
def library():
    """Horovod's module of operations: each returns what it is given."""
    names = ("allreduce", "allgather", "broadcast", "broadcast_inplace", "size", "alltoall")
    return SimpleNamespace(**{f"horovod_{name}": lambda *args, **_: args for name in names})


def test_only_what_reaches_every_rank_counts(library):
    collectives = Collectives(library)
    assert library.horovod_allreduce(1, name="gradient") == (1,)
    library.horovod_allgather(2)
    library.horovod_alltoall(3)
    assert collectives.exchanges == 3
    library.horovod_broadcast(4)
    library.horovod_broadcast_inplace(5)
    library.horovod_size()
    assert collectives.exchanges == 3


def test_what_tfos_exchanges_for_itself_does_not(library):
    collectives = Collectives(library)
    with collectives.uncounted(), collectives.uncounted():
        library.horovod_allgather(1)
    assert collectives.exchanges == 0
    library.horovod_allgather(1)
    assert collectives.exchanges == 1
