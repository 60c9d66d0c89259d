"""What a role's process should be, whatever order its two nodes are heard in."""

import pytest

from tfos.registry.orders import OrderLine


def told_after(*heard):
    """Return what the listener is told; `heard` are generations (int) and respawns (text)."""
    told = []
    line = OrderLine(lambda *order: told.append(order))
    for data in heard:
        if isinstance(data, int):
            line.hear_generations(f"{data} 0c7d".encode())
        else:
            line.hear_respawns(data.encode())
    return told


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ((0,), []),
        (("",), []),
        ((0, ""), [(0, 0)]),
        (("", 2), [(2, 0)]),
        ((1, "ps-0.g1.r2"), [(1, 2)]),
        ((2, "ps-0.g1.r2"), [(2, 0)]),
        ((1, "ps-0.g1.r2", 2), [(1, 2), (2, 0)]),
        # The order for a respawn of generation 2 is heard before generation 2 itself.
        ((1, "ps-0.g1.r3", "ps-0.g2.r1", 2), [(1, 3), (2, 1)]),
        # A watch read again after a reconnect.
        ((1, "ps-0.g1.r1", 1, "ps-0.g1.r1"), [(1, 1)]),
    ],
)
def test_the_newest_is_told_once_and_never_goes_back(heard, told):
    assert told_after(*heard) == told


def test_a_tree_that_is_gone_tells_nothing():
    told = []
    line = OrderLine(lambda *order: told.append(order))
    line.hear_respawns(b"")
    line.hear_generations(b"1 0c7d")
    line.hear_generations(None)
    line.hear_respawns(None)
    assert told == [(1, 0)]
