from __future__ import annotations

import json

import pytest

from tfos.frameworks.tensorflow.fingerprint import changes, fingerprint
from tfos.read_plan import FeedPosition, ReadPlan
from tfos.topology import ClusterSpec, Role, TaskKey
from tfos.training_parts import FitPlan, ProcessFacts

CHIEF = TaskKey(Role.CHIEF, 0)


def made(params=None, args=(), source="abc", max_steps=None, **reading):
    facts = ProcessFacts(
        job_name="job",
        run_id="r",
        generation=1,
        key=CHIEF,
        cluster=ClusterSpec({}),
        trainers=(CHIEF,),
        row_orders=(0,),
        params=params or {},
        args=args,
        source=source,
    )
    plan = FitPlan(
        step=lambda batch: {},
        read=ReadPlan(**reading),
        state={},
        evaluate=None,
        evaluate_every_epochs=1,
        max_steps=max_steps,
        stop_when=None,
    )
    # As it comes back from a checkpoint.
    return json.loads(json.dumps(fingerprint(facts, plan)))


@pytest.mark.parametrize(
    ("saved", "now", "told"),
    [
        (made(), made(), ""),
        (
            made({"size": "50000"}),
            made({"size": "100000"}),
            "saved with size=50000; now size=100000",
        ),
        (made({"a": "1"}), made({"b": "2"}), "saved with a=1, b=unset; now a=unset, b=2"),
        (
            made(batch_size=64, epochs=2, columns=["x"]),
            made(batch_size=128, epochs=2, columns=["x", "y"]),
            "saved with batch_size=64, columns=['x']; now batch_size=128, columns=['x', 'y']",
        ),
        (made(max_steps=5), made(), "saved with max_steps=5; now max_steps=None"),
        (made(args=["a"]), made(args=[]), "saved with arguments ['a']; now arguments []"),
        (made(source="abc"), made(source="def"), "the application's source has changed since"),
        (
            made({"k": "1"}, source="abc"),
            made({"k": "2"}, source="def"),
            "saved with k=1; now k=2; the application's source has changed since",
        ),
        # Unknown on one side: a notebook's.
        (made(source=""), made(source="def"), ""),
        # Where a run had come to is no choice of the user's.
        (made(), made(start=FeedPosition(1, 5)), ""),
        # Of a checkpoint that says nothing, or something else.
        (None, made(), ""),
        ([1], made(), ""),
        ({"params": 5, "fit": None, "args": "x", "source": 3}, made(source=""), ""),
    ],
)
def test_what_changed_since_the_checkpoint(saved, now, told):
    assert changes(saved, now) == told


def test_a_line_stays_a_line():
    many = made({f"p{i}": "x" * 500 for i in range(40)})
    told = changes(made(), many)
    assert "and 34 more" in told
    assert len(told) < 1200
