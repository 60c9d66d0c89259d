"""Which ranks take part in a step, whatever rows each has."""

from hypothesis import given
from hypothesis import strategies as st

from tfos.frameworks.tensorflow.ring.standing import Standing, next_turn
from tfos.read_plan import FeedPosition


def offer(feed, rows, epoch, row, stopping=0):
    return Standing(feed, rows, epoch, row, stopping)


def test_every_rank_counts_by_its_rows():
    turn = next_turn([offer(0, 30, 0, 30), offer(1, 10, 0, 10)])
    assert turn.rows == 40
    assert (turn.share(0), turn.share(1)) == (0.75, 0.25)
    assert not turn.stopping


def test_a_rank_without_rows_steps_along_for_nothing():
    turn = next_turn([offer(0, 8, 0, 8), offer(1, 0, 0, 0)])
    assert (turn.share(0), turn.share(1)) == (1.0, 0.0)
    assert set(turn.taking_part) == {0}


def test_nobody_begins_an_epoch_before_all_have_ended_the_one_before():
    # Rank 0 has read its first batch of epoch 1; rank 1 is at the last one of epoch 0.
    turn = next_turn([offer(0, 8, 1, 8), offer(1, 8, 1, 0)])
    assert set(turn.taking_part) == {1}
    # The batch after it is of epoch 1, too.
    turn = next_turn([offer(0, 8, 1, 8), offer(1, 8, 1, 8)])
    assert set(turn.taking_part) == {0, 1}


def test_an_epoch_whose_end_was_not_known_yet_is_told_by_the_batch_after_it():
    assert offer(0, 8, 0, 8).of_epoch == 0
    assert offer(0, 8, 1, 8).of_epoch == 1
    assert offer(0, 8, 1, 0).of_epoch == 0


def test_one_rank_that_is_told_to_stop_is_enough():
    assert next_turn([offer(0, 1, 0, 1), offer(1, 1, 0, 1, 1)]).stopping


def test_it_is_over_when_no_rank_has_rows():
    turn = next_turn([offer(0, 0, 0, 0), offer(1, 0, 0, 0)])
    assert (turn.rows, turn.taking_part) == (0, {})


def batches_of(rows, size, epochs):
    """Return a rank's standings, batch by batch, as its feed tells them."""
    told = []
    for epoch in range(epochs):
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            after = FeedPosition(epoch + 1, 0) if stop == rows else FeedPosition(epoch, stop)
            told.append((stop - start, *after))
    return told


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_each_row_is_used_once_an_epoch_and_all_end_together(partitions, size, epochs):
    left = [batches_of(rows, size, epochs) for rows in partitions]
    used = {}
    steps = 0
    while True:
        standings = [
            offer(rank, *batches[0]) if batches else offer(rank, 0, 0, 0)
            for rank, batches in enumerate(left)
        ]
        turn = next_turn(standings)
        if turn.rows == 0:
            break
        epochs_taking_part = {standing.of_epoch for standing in turn.taking_part.values()}
        assert len(epochs_taking_part) == 1
        assert abs(sum(turn.share(rank) for rank in range(len(left))) - 1) < 1e-9
        for rank, standing in turn.taking_part.items():
            key = (rank, standing.of_epoch)
            used[key] = used.get(key, 0) + standing.rows
            left[rank].pop(0)
        steps += 1
    longest = max(-(-rows // size) for rows in partitions)
    assert steps == epochs * longest
    assert used == {
        (rank, epoch): rows
        for rank, rows in enumerate(partitions)
        for epoch in range(epochs)
        if rows
    }
