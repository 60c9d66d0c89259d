"""The line that shows how training proceeds."""

from __future__ import annotations

import pytest

from tfos.launcher.driver.progress import Lines, epoch_of, share_done, time_left
from tfos.progress import Aim, Progress, RoleProgress
from tfos.read_plan import FeedPosition
from tfos.topology import Role, TaskKey, describe_counts

CHIEF, *WORKERS = (
    TaskKey(Role.CHIEF, 0),
    TaskKey(Role.WORKER, 0),
    TaskKey(Role.WORKER, 1),
)
WALL = 1_700_000_000.0


def role(step=0, rows=0, metrics=None, stepping_since=WALL - 10.0, read=None, **more):
    return RoleProgress(
        Progress(step, rows, metrics or {}),
        stepping_since=stepping_since,
        read=None if read is None else FeedPosition(*read),
        **more,
    )


def chief(step=0, rows=0, epochs=None, max_steps=None, **more):
    return role(step, rows, aim=Aim(epochs, max_steps), **more)


def test_the_first_line_has_the_rate_since_the_first_step_and_later_ones_since_the_last():
    lines = Lines()
    first = {CHIEF: role(100, 5000, metrics={"loss": 0.5, "auc": 0.75})}
    assert lines.line(first, 50.0, WALL) == "step 100  500 rows/s  auc 0.75  loss 0.5"
    assert lines.line({CHIEF: role(1300, 5500)}, 55.0, WALL + 5) == "step 1,300  100 rows/s"
    # Began again from a checkpoint.
    assert lines.line({CHIEF: role(1100, 0)}, 60.0, WALL + 10) == "step 1,100  0 rows/s"


@pytest.mark.parametrize("since", [None, WALL + 30.0])
def test_a_clock_ahead_of_the_drivers_makes_no_rate_up(since):
    first = {CHIEF: role(100, 5000, stepping_since=since)}
    assert Lines().line(first, 50.0, WALL) == "step 100  0 rows/s"


@pytest.mark.parametrize(
    ("progress", "share", "epoch"),
    [
        ({CHIEF: role(10)}, None, ""),
        ({CHIEF: chief(250, max_steps=1000)}, 0.25, ""),
        ({CHIEF: chief(5, epochs=4, fed=100, read=[1, 50])}, 0.375, "epoch 2/4"),
        # Not all of the rows are there yet: nobody knows how long an epoch is.
        ({CHIEF: chief(5, epochs=4, fed=None, read=[0, 50])}, None, "epoch 1/4"),
        ({CHIEF: chief(5, epochs=1, fed=100, read=[0, 50])}, 0.5, ""),
        # Under ps workers read and the chief knows the end; the rows of each count.
        (
            {
                CHIEF: chief(5, epochs=2),
                WORKERS[0]: role(fed=300, read=[1, 0]),
                WORKERS[1]: role(fed=100, read=[0, 50]),
            },
            0.4375,
            "epoch 1/2",
        ),
        ({CHIEF: chief(900, epochs=2, max_steps=1000, fed=9, read=[0, 0])}, 0.9, "epoch 1/2"),
        ({CHIEF: chief(5, epochs=2, fed=100, read=[2, 0])}, 1.0, "epoch 2/2"),
        ({CHIEF: chief(5, epochs=2, fed=0, read=[0, 0])}, None, "epoch 1/2"),
    ],
)
def test_how_much_is_done_where_the_end_is_known(progress, share, epoch):
    assert share_done(progress) == share
    assert epoch_of(progress) == epoch


def test_the_time_left_appears_once_it_can_be_told_and_begins_anew_with_a_restart():
    lines = Lines()

    def line(step, now):
        return lines.line({CHIEF: chief(step, max_steps=1000)}, now, WALL).rpartition("rows/s")[2]

    assert line(100, 0.0) == ""
    assert line(110, 1.0) == ""
    assert line(200, 10.0) == "  about 80 s left"
    assert line(600, 50.0) == "  about 40 s left"
    assert line(500, 60.0) == ""
    assert line(600, 70.0) == "  about 40 s left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (95, "2 min"), (3600, "60 min"), (9000, "2 h 30 min")],
)
def test_time_in_words(seconds, words):
    assert time_left(seconds) == f"about {words} left"


def test_roles_are_counted_in_words():
    counts = {Role.CHIEF: 1, Role.WORKER: 2, Role.PS: 1}
    assert describe_counts(counts) == "1 chief, 2 workers, 1 parameter server"
    assert describe_counts({Role.PS: 3}) == "3 parameter servers"
