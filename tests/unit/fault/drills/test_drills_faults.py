"""The faults of a drill: how they are written, what is refused, and when each is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfos.errors import ConfigError
from tfos.fault.drills.faults import ACTIONS, POINTS, Drill, Fault
from tfos.topology import Role, TaskKey

KEYS = st.builds(TaskKey, st.sampled_from(Role), st.integers(0, 9999))


@st.composite
def faults(draw) -> Fault:
    """Draw any fault that can be asked for."""
    action = draw(st.sampled_from(sorted(ACTIONS)))
    seconds = st.integers(0, 999_999_999).map(lambda thousandths: thousandths / 1000)
    amount = {
        "exit": st.integers(0, 255).map(float),
        **dict.fromkeys(("slow", "cut", "fill"), seconds),
    }.get(action, st.just(0.0))
    parts = {"cut": ["host", "executor", "zookeeper"], "fill": ["host"]}.get(action, ["process"])
    if action in ("kill", "stop"):
        parts += ["host", "executor", "driver", "zookeeper"]
    part = draw(st.sampled_from(parts))
    key = None if part in ("driver", "zookeeper") else draw(KEYS)
    point = draw(st.sampled_from(sorted(POINTS)))
    step = draw(st.integers(0, 10**9)) if point == "step" else 0
    return Fault(action, draw(amount), part, key, point, step)


@given(faults())
def test_what_a_fault_is_written_as_reads_back_the_same(fault):
    assert Fault.parse(str(fault)) == fault
    assert Fault.parse(f" {fault}\n") == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "kill:worker-0@step=100",
            Fault("kill", 0.0, "process", TaskKey(Role.WORKER, 0), "step", 100),
        ),
        ("stop:ps-0@feed", Fault("stop", 0.0, "process", TaskKey(Role.PS, 0), "feed")),
        (
            "kill:chief-0/executor@checkpoint",
            Fault("kill", 0.0, "executor", TaskKey(Role.CHIEF, 0), "checkpoint"),
        ),
        ("kill:ps-1/host@register", Fault("kill", 0.0, "host", TaskKey(Role.PS, 1), "register")),
        (
            "exit=3:chief-0@shutdown",
            Fault("exit", 3, "process", TaskKey(Role.CHIEF, 0), "shutdown"),
        ),
        ("slow=2.5:ps-0@feed", Fault("slow", 2.5, "process", TaskKey(Role.PS, 0), "feed")),
        ("expire:ps-0@feed", Fault("expire", 0.0, "process", TaskKey(Role.PS, 0), "feed")),
        ("cut=7.5:ps-0/host@feed", Fault("cut", 7.5, "host", TaskKey(Role.PS, 0), "feed")),
        ("cut=3:zookeeper@feed", Fault("cut", 3.0, "zookeeper", None, "feed")),
        ("fill=2:chief-0/host@feed", Fault("fill", 2.0, "host", TaskKey(Role.CHIEF, 0), "feed")),
        ("kill:driver@feed", Fault("kill", 0.0, "driver", None, "feed")),
        ("stop:zookeeper@step=0", Fault("stop", 0.0, "zookeeper", None, "step", 0)),
    ],
)
def test_how_faults_are_written(text, fault):
    assert Fault.parse(text) == fault
    assert str(fault) == text


ACTION = "ACTION is one of kill, stop, exit, slow, expire, cut, fill"
CODE = "write exit=CODE: the training process exits with this code, 0 to 255"
SECONDS = "write slow=SECONDS: it runs for a tenth of the time, for so long (at most 999999.999)"
TARGET = (
    "TARGET is ROLE-INDEX (ROLE one of chief, worker, ps), as it is or with /host or /executor, or "
    "driver or zookeeper"
)
CUT = "cut is for a role's host, such as worker-0/host, or its /executor, or zookeeper"
POINT = "POINT is one of register, feed, step, checkpoint, shutdown (step=N)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is not of that form"),
        ("kill", "it is not of that form"),
        ("kill:worker-0", "it is not of that form"),
        ("kill@feed", "it is not of that form"),
        ("kill:worker-0@feed@feed", "it is not of that form"),
        ("kill:worker-0@step=-1", "it is not of that form"),
        ("fry:worker-0@feed", ACTION),
        ("Kill:worker-0@feed", ACTION),
        ("kill=9:worker-0@feed", "kill takes no number"),
        ("stop=:worker-0@feed", "stop takes no number"),
        ("expire=2:worker-0@feed", "expire takes no number"),
        ("exit:worker-0@feed", CODE),
        ("exit=:worker-0@feed", CODE),
        ("exit=256:worker-0@feed", CODE),
        ("exit=1.5:worker-0@feed", CODE),
        ("exit=-1:worker-0@feed", CODE),
        ("slow:worker-0@feed", SECONDS),
        ("slow=1.2.3:worker-0@feed", SECONDS),
        ("slow=.:worker-0@feed", SECONDS),
        ("slow=1e3:worker-0@feed", SECONDS),
        ("slow=nan:worker-0@feed", SECONDS),
        ("kill:worker@feed", TARGET),
        ("kill:worker-00@feed", TARGET),
        ("kill:worker-٣@feed", TARGET),
        ("kill:evaluator-0@feed", TARGET),
        ("kill:worker-0/vm@feed", TARGET),
        ("kill:worker-0/@feed", TARGET),
        ("kill:driver/host@feed", TARGET),
        ("exit=1:driver@feed", "exit is for a role's process, such as worker-0"),
        ("slow=1:worker-0/host@feed", "slow is for a role's process, such as worker-0"),
        ("expire:zookeeper@feed", "expire is for a role's process, such as worker-0"),
        (
            "cut:worker-0/host@feed",
            "write cut=SECONDS: its network is cut, for so long (at most 999999.999)",
        ),
        (
            "fill:ps-0/host@feed",
            "write fill=SECONDS: its temporary directory's disk is full (at most 999999.999)",
        ),
        ("cut=1:worker-0@feed", CUT),
        ("cut=1:driver@feed", CUT),
        ("fill=1:ps-0/executor@feed", "fill is for a role's host, such as worker-0/host"),
        ("kill:worker-0@lunch", POINT),
        ("kill:worker-0@step", POINT),
        ("kill:worker-0@feed=3", POINT),
    ],
)
def test_what_is_malformed_is_refused_with_what_is_possible(text, says):
    with pytest.raises(ConfigError) as caught:
        Fault.parse(text)
    assert str(caught.value) == (
        f"--inject {text!r}: {says}; expected ACTION:TARGET@POINT, such as kill:worker-0@step=100, "
        "stop:ps-0@feed or kill:chief-0/executor@checkpoint"
    )


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_any_other_text_is_a_configuration_error(text):
    try:
        fault = Fault.parse(text)
    except ConfigError:
        return
    assert Fault.parse(str(fault)) == fault


@given(st.from_regex(r"\A[a-z]{3,6}=?[0-9.]{0,8}:[a-z]{2,6}-[0-9]/?[a-z]{0,8}@[a-z]{4,10}=?\d?\Z"))
def test_so_is_what_only_looks_like_a_fault(text):
    test_any_other_text_is_a_configuration_error.hypothesis.inner_test(text)


# -- when they are due -----------------------------------------------------------------------------


@pytest.mark.parametrize("point", sorted(set(POINTS) - {"step"}))
def test_a_fault_is_due_at_its_point_once(point):
    fault = Fault.parse(f"kill:ps-0@{point}")
    drill = Drill([fault])
    for other in sorted(set(POINTS) - {point}):
        assert drill.due(other, 99) == []
    assert drill.due(point) == [fault]
    assert drill.due(point) == []


def test_a_step_is_reached_when_it_is_passed():
    at5, at7 = Fault.parse("kill:ps-0@step=5"), Fault.parse("stop:ps-0@step=7")
    drill = Drill([at7, at5])
    assert drill.due("step", 4) == []
    assert drill.due("step", 5) == [at5]
    assert drill.due("step", 6) == []
    assert drill.due("step", 100) == [at7]
    assert drill.due("step", 100) == []


def test_several_may_be_due_at_once():
    first, second = Fault.parse("stop:ps-0@feed"), Fault.parse("expire:ps-0@feed")
    assert Drill([first, second]).due("feed") == [first, second]


@given(st.lists(faults(), max_size=6), st.lists(st.integers(0, 10**9), max_size=6))
def test_every_fault_is_given_exactly_once(given_faults, steps):
    drill = Drill(given_faults)
    found = []
    for step in [*sorted(steps), 10**9]:
        for point in POINTS:
            found += drill.due(point, step if point == "step" else 0)
    assert sorted(map(str, found)) == sorted(map(str, given_faults))
    assert not drill.watches_training


def test_training_is_watched_only_for_faults_that_wait_for_it():
    assert not Drill([]).watches_training
    assert not Drill([Fault.parse("kill:ps-0@feed")]).watches_training
    drill = Drill([Fault.parse("kill:ps-0@checkpoint"), Fault.parse("kill:ps-0@step=3")])
    assert drill.watches_training
    drill.due("checkpoint")
    assert drill.watches_training
    drill.due("step", 3)
    assert not drill.watches_training
