"""The ring, for real: Horovod ranks in a barrier stage, the common loop, Horovod's own ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfos.errors import ExitCode

RING = str(Path(__file__).parent / "apps" / "ring.py")

pytestmark = [
    pytest.mark.horovod,
    pytest.mark.spark,
    pytest.mark.tf,
    pytest.mark.zookeeper,
    pytest.mark.timeout(500),
]


def ring(ranks: int) -> tuple[str, ...]:
    return ("--arch", "ring", "--num-workers", str(ranks))


@pytest.mark.parametrize("ranks", [[2], pytest.param([1, 4], marks=pytest.mark.faults)])
def test_the_curve_is_the_same_on_any_number_of_ranks(in_session, ranks):
    given = ("-p", "evaluate=yes", "-p", "epochs=6", RING)
    alone = in_session("--arch", "local", "-p", "ranks=1", *given).record["result"]
    # 16 batches an epoch, of which the last has 40 of 64 rows: on four ranks 16, 16, 8 and none.
    assert alone["step"] == 6 * 16
    assert alone["curve"][-1] < alone["curve"][0] / 10
    for count in ranks:
        run = in_session(*ring(count), "-p", f"ranks={count}", *given)
        assert run.code == ExitCode.OK
        found = run.record["result"]
        assert found["curve"] == pytest.approx(alone["curve"], rel=1e-4)
        assert found["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-5)
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-3)
        assert (found["step"], found["rows"]) == (alone["step"], alone["rows"])
        assert (found["fewest"], found["most"]) == (6, 6)


def test_uneven_and_empty_partitions_end_together_every_row_once_an_epoch(in_session):
    uneven = ("-p", "parts=0,1,999,50000", "-p", "batch=512", "-p", "evaluate=yes")
    run = in_session(*ring(4), *uneven, RING)
    assert run.code == ExitCode.OK
    found = run.record["result"]
    assert (found["fewest"], found["most"]) == (2, 2)
    # The rank with most rows decides: 98 batches an epoch.
    assert found["step"] == 2 * 98
    assert found["rows"] == 2 * 51000
    # The weights of each step's rows add up to one.
    assert found["weighed"] == pytest.approx(found["step"], rel=1e-5)
    assert run.record["rows"]["train"] == 51000
    # A rank without rows does not hold the evaluation of an epoch back.
    assert len(found["curve"]) == 2


def test_it_resumes_and_stops_together(in_session, tmp_path):
    kept = ("--checkpoint-dir", str(tmp_path / "kept"), "-p", "ranks=2")
    first = in_session(*ring(2), *kept, RING)
    assert first.record["result"]["step"] == 32
    run = in_session(
        *ring(2), *kept, "-p", "epochs=9", "-p", "evaluate=yes", "-p", "stop_at=1", RING
    )
    assert run.code == ExitCode.OK
    found = run.record["result"]
    assert found["resumed_from"] == 32
    # Rank 0 alone asks for the stop.
    assert found["stopped_early"]
    assert found["step"] < 9 * 16
    assert found["fewest"] == found["most"] == found["step"] // 16
    # What rank 0 begins from is what all begin from, their optimizers' slots included.
    warm = ("--name", "warm", "--warm-start", str(tmp_path / "kept" / "RingJob"), "-p", "ranks=2")
    run = in_session(*ring(2), *warm, RING)
    assert run.code == ExitCode.OK
    assert "warm start from" in run.text
    assert run.record["result"]["most"] == found["most"] + 2


def test_what_is_trained_in_any_way_is_the_same_on_every_rank(in_session):
    run = in_session(*ring(2), "-p", "program=ways", "-p", "ranks=2", RING)
    assert run.code == ExitCode.OK
    found = run.record["result"]
    assert "take it from tf_keras" in found["refused"]
    # A model that makes its variables late.
    assert found["totals"][0] == found["totals"][1]
    # Of a variance of 6.
    assert found["loss"] < 0.5
    # One that Keras's fit trains with the callbacks of the context.
    assert found["keras"]["weights"][0] == found["keras"]["weights"][1]
    assert found["keras"]["losses"][-1] < found["keras"]["losses"][0] / 2
    # Each optimizer that a model has is averaged.
    assert found["two"][0] == found["two"][1]
    # And Horovod's own ways work as they are known.
    own = found["own"]
    assert own["started_at"] == 0.0
    assert own["weights"][0] == own["weights"][1]
    assert own["weights"][0] == pytest.approx(2, abs=0.5)


def test_ranks_that_exchange_nothing_end_with_an_error(in_session):
    run = in_session(*ring(2), "-p", "program=alone", "-p", "ranks=2", RING)
    assert run.code == ExitCode.CONFIG
    assert "the 2 ranks exchanged nothing" in run.record["error"]
    assert "callbacks=ctx.keras_callbacks()" in run.record["error"]


def test_an_optimizer_that_is_not_in_the_state_is_told(in_session):
    run = in_session(*ring(2), "-p", "ranks=2", "-p", "optimizer=forgotten", RING)
    assert run.code == ExitCode.CONFIG
    assert "is not what it is at rank 0" in run.record["error"]
    assert "put it there" in run.record["error"]


def test_too_few_slots_are_told_at_once(submit):
    master = "local-cluster[1,1,1024]"
    run = submit("--master", master, *ring(2), "-p", "ranks=2", RING)
    assert run.code == ExitCode.RESOURCES
    assert "2 roles need 2 task slots at once" in run.text
    assert f"{master} has 1" in run.text
