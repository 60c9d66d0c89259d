"""What a warm start takes of a checkpoint, and what of it a resume cannot take."""

from __future__ import annotations

import pytest

from tfos.frameworks.tensorflow.warm_start_plan import Variable, describe_differences, match


def v(path: str, *shape: int, name: str = "", dtype: str = "float32", setting: bool = False):
    return Variable(path, name, shape, dtype, setting)


SLOT = "table/.OPTIMIZER_SLOT/opt/accumulator"


@pytest.mark.parametrize(
    ("holds", "has", "fate"),
    [
        ([v("table", 50, 4)], [v("table", 50, 4)], "fitted"),
        ([v("b")], [v("b")], "fitted"),
        ([v("table", 50, 4)], [v("table", 60, 4)], "grown"),
        ([v("bias", 50)], [v("bias", 60)], "grown"),
        ([v(SLOT, 50, 4)], [v(SLOT, 60, 4)], "grown"),
        ([v("table", 50, 4)], [v("table", 40, 4)], "shrunk"),
        ([v("table", 50, 4)], [v("table", 50, 8)], "differing"),
        ([v("table", 50, 4)], [v("table", 60, 8)], "differing"),
        ([v("table", 50, 4)], [v("table", 50, 4, dtype="float64")], "differing"),
        ([v("table", 50, 4)], [v("table", 50)], "differing"),
        # Renamed in the state, the variable's own name kept.
        ([v("table", 50, 4, name="items")], [v("embedding", 60, 4, name="items")], "grown"),
        # A Saver's key is the variable's name.
        ([v("items", 50, 4, name="items")], [v("model/table", 50, 4, name="items")], "fitted"),
        # A SavedModel of one object of the state, and the other way round.
        ([v("dense/kernel", 4, 3)], [v("model/dense/kernel", 4, 3)], "fitted"),
        ([v("model/dense/kernel", 4, 3)], [v("dense/kernel", 4, 3)], "fitted"),
    ],
)
def test_one_variable_on_each_side(holds, has, fate):
    plan = match(holds, has)
    (pair,) = getattr(plan, fate)
    assert (pair.held, pair.has) == (holds[0], has[0])
    assert not plan.new
    assert not plan.dropped


@pytest.mark.parametrize(
    ("holds", "has"),
    [
        ([v("table", 50, 4, name="items")], [v("other", 50, 4, name="users")]),
        # Names that TensorFlow gave say nothing.
        ([v("a", 3, name="Variable")], [v("b", 3, name="Variable")]),
        ([v("a", 3, name="opt/Variable_1")], [v("b", 3, name="opt/Variable_1")]),
        # A name that two bear says nothing, nor one whose shape is another.
        ([v("a", 3, name="w"), v("b", 3, name="w")], [v("c", 3, name="w")]),
        ([v("a", 3, 2, name="w")], [v("c", 3, 5, name="w")]),
    ],
)
def test_what_is_not_known_to_be_the_same_is_new_and_dropped(holds, has):
    plan = match(holds, has)
    assert plan.new == has
    assert plan.dropped == holds
    assert not plan.fitted


def test_what_an_optimizer_keeps_follows_its_variable_through_the_list():
    holds = [
        v("opt/_variables/1", 50, 4, name="Adam/m/items"),
        v("opt/_variables/2", 50, 4, name="Adam/v/items"),
    ]
    has = [
        v("opt/_variables/1", 50, 4, name="Adam/m/users"),
        v("opt/_variables/2", 50, 4, name="Adam/v/users"),
        v("opt/_variables/3", 60, 4, name="Adam/m/items"),
        v("opt/_variables/4", 60, 4, name="Adam/v/items"),
    ]
    plan = match(holds, has)
    assert [(p.held.name, p.has.path) for p in plan.grown] == [
        ("Adam/m/items", "opt/_variables/3"),
        ("Adam/v/items", "opt/_variables/4"),
    ]
    assert plan.new == has[:2]
    # A sharded variable's has no name of its own: its place counts.
    sharded = match(holds[:1], [v("opt/_variables/1", 60, 4, name="ShardedVariable")])
    assert len(sharded.grown) == 1


def test_an_optimizers_settings_stay_the_jobs_own():
    held = [v("opt/_learning_rate"), v("opt/_iterations", dtype="int64")]
    has = [v("opt/_learning_rate", setting=True), v("opt/_iterations", dtype="int64")]
    plan = match(held, has)
    assert [pair.has.path for pair in plan.fitted] == ["opt/_iterations"]
    assert plan.new == plan.dropped == plan.differing == []


def test_the_summary_counts_all_and_names_a_few():
    holds = [v("table", 50, 4), v("kept", 2), v("old", 3), v("wide", 2, 3)]
    has = [v("table", 60, 4), v("kept", 2), v("wide", 2, 5), *(v(f"n{i}") for i in range(6))]
    plan = match(holds, has)
    assert str(plan) == (
        "1 taken as saved; 1 grown: table [50, 4] -> [60, 4]; "
        "6 new: n0 [], n1 [], n2 [], n3 [] and 2 more; "
        "1 of another shape or type, so initial: wide [2, 3] -> [2, 5]; 1 dropped: old [3]"
    )
    assert plan.to_json()["dropped"] == ["old [3]"]


@pytest.mark.parametrize(
    ("holds", "has", "told"),
    [
        ([v("t", 50, 4)], [v("t", 50, 4)], ""),
        ([v("t", 50, 4)], [v("t", 60, 4)], "t is [50, 4] float32 there and [60, 4] float32 here"),
        ([v("t", 2)], [v("t", 2), v("b")], "the job has b [], which the checkpoint lacks"),
        (
            [v("t", 2), v("opt/iter"), v("opt/decay"), v("opt/_variables/1", 2), v(SLOT, 2)],
            [v("e", 2)],
            "the job has e [2], which the checkpoint lacks; "
            "the checkpoint has t [2], which the job lacks",
        ),
        # A resume leaves out what is gone.
        ([v("t", 2), v("b")], [v("t", 2)], ""),
    ],
)
def test_what_a_resume_cannot_take(holds, has, told):
    assert describe_differences(holds, has) == told


def test_at_the_first_step_only_a_shape_explains_its_error():
    assert describe_differences([], [v("late", 3)], shapes_only=True) == ""
    assert describe_differences([v("late", 2)], [v("late", 3)], shapes_only=True) != ""
