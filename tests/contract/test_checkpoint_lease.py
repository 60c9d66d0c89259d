"""One run at a time on a job's checkpoints: wherever they are, and however their holder ended."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.checkpoint_places import Place, weights

from tfos import wire
from tfos.errors import AlreadyRunningError, CheckpointFencedError, ExitCode
from tfos.fault.checkpoints.lease import CheckpointLease
from tfos.fault.checkpoints.place import open_storage
from tfos.fault.processes.identity import ProcessIdentity, Proof
from tfos.run_holder import holder_here

NEVER_S = 1000.0


def elsewhere(name="another"):
    """A process of which nothing can be proven."""
    return replace(ProcessIdentity.here({}), machine=name)


def lease(place, run_id="run-2", on_lost=lambda why: None, **options):
    given = {"beat_s": 0.1, "expire_s": 2.0, **options}
    return CheckpointLease(open_storage(place.url, "fm"), holder_here(run_id), on_lost, **given)


def claims(place):
    return [name for name in place.entries() if name.startswith("lease-")]


class TestHeldElsewhere:
    def test_a_live_holder_is_named_and_nothing_of_the_refused_is_left(self, place):
        with lease(place, "run-1", process=elsewhere()):
            with pytest.raises(AlreadyRunningError, match="--checkpoint-dir") as caught:
                lease(place, expire_s=NEVER_S).__enter__()
            assert claims(place) == ["lease-run-1"]
        assert caught.value.exit_code is ExitCode.ALREADY_RUNNING
        assert caught.value.holder.startswith("run run-1, on ")
        assert caught.value.holder in str(caught.value)
        with lease(place):
            assert claims(place) == ["lease-run-2"]
        assert claims(place) == []

    def test_one_that_is_seen_to_live_on_this_machine_is_not_waited_for(self, place):
        with (
            lease(place, "run-1", beat_s=NEVER_S),
            pytest.raises(AlreadyRunningError),
        ):
            lease(place, beat_s=NEVER_S, expire_s=NEVER_S).__enter__()

    def test_a_dead_one_elsewhere_is_waited_for_with_a_line(self, place, caplog):
        lease(place, "run-1", process=elsewhere(), beat_s=NEVER_S).__enter__()
        with caplog.at_level(logging.INFO, "tfos"), lease(place, expire_s=0.5):
            assert claims(place) == ["lease-run-2"]
        (line,) = [r.getMessage() for r in caplog.records if "run run-1" in r.getMessage()]
        assert "waiting at most 0.5 s for a sign of life" in line

    @pytest.mark.parametrize(
        "content", [b"", b"\xff", b"[]", b'{"beat": "x"}', b'{"beat": 1}', b" " * 5000]
    )
    def test_what_nobody_understands_expires(self, place, content):
        place.store().check_writable()
        place.fs.makedirs(f"{place.root}/fm/lease-odd", exist_ok=True)
        place.write("lease-odd/odd", content)
        with lease(place, expire_s=0.3):
            assert claims(place) == ["lease-run-2"]


def test_what_is_no_directory_expires_too(tmp_path):
    place = Place(str(tmp_path))
    place.store().check_writable()
    os.mkfifo(tmp_path / "fm" / "lease-odd")
    with lease(place, expire_s=0.3):
        assert claims(place) == ["lease-run-2"]


def test_a_killed_process_of_this_machine_is_not_waited_for(tmp_path):
    place = Place(str(tmp_path))
    script = (
        "import sys, time\n"
        "from tfos.fault.checkpoints.store import CheckpointStore\n"
        "with CheckpointStore(sys.argv[1], 'fm').lease('run-1', print):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", script, place.url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunningError, match=f"pid {holder.pid}"):
            lease(place, expire_s=NEVER_S).__enter__()
        holder.kill()
    with lease(place, expire_s=NEVER_S):
        assert claims(place) == ["lease-run-2"]


def test_of_many_at_once_one_holds_it(place):
    inside, most = [], []
    guard = threading.Lock()

    def enter(number):
        try:
            with lease(place, f"run-{number}", process=elsewhere(str(number)), expire_s=NEVER_S):
                with guard:
                    inside.append(number)
                    most.append(len(inside))
                time.sleep(0.2)
                with guard:
                    inside.remove(number)
        except AlreadyRunningError:
            pass

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, range(6)))
    assert most
    assert set(most) == {1}
    assert claims(place) == []


def renew(silent):
    """Let a holder that was silent until now renew its lease until that is lost."""
    silent._beat_s = 0.0
    silent._renew()


class TestTakenOver:
    def test_who_was_silent_for_too_long_is_told_by_whom(self, place):
        lost = []
        with (
            lease(place, "run-1", lost.append, process=elsewhere(), beat_s=NEVER_S) as silent,
            lease(place, "run-2", expire_s=0.3),
        ):
            renew(silent)
        assert ["run run-2, on " in why for why in lost] == [True]

    def test_by_one_that_does_not_hold_it_yet_is_told_by_whom(self, place):
        lost = []
        with lease(place, "run-1", lost.append, process=elsewhere(), beat_s=NEVER_S) as silent:
            taking = lease(place, "run-2")
            taking._write()
            silent._withdraw()
            renew(silent)
            taking._withdraw()
        assert ["run run-2, on " in why for why in lost] == [True]

    def test_it_can_commit_no_checkpoint_then(self, place):
        held = lease(place, "run-1", process=elsewhere(), beat_s=NEVER_S)
        held.__enter__()
        place.store(run_id="run-1").save(1, 1, weights("a"))
        with lease(place, "run-2", expire_s=0.3):
            with pytest.raises(CheckpointFencedError, match="run run-2"):
                place.store(run_id="run-1").save(2, 1, weights("b"))
            place.store(run_id="run-2").save(3, 1, weights("c"))
            # A renewal that was under way comes after its removal.
            held._write()
            with pytest.raises(CheckpointFencedError, match="run run-2"):
                place.store(run_id="run-1").save(4, 1, weights("d"))
        assert [info.step for info in place.store().list()] == [3, 1]

    def test_starting_over_leaves_the_lease(self, place):
        with lease(place):
            place.store().save(1, 1, weights("a"))
            place.store().remove_all()
            assert claims(place) == ["lease-run-2"]


@pytest.mark.parametrize(
    ("holder", "observer", "proof"),
    [
        ("container_7_1_01_000001", "container_7_1_02_000001", Proof.DEAD),
        ("container_e3_7_1_01_000001", "container_e3_7_1_02_000001", Proof.DEAD),
        ("container_7_1_02_000001", "container_7_1_01_000001", Proof.NONE),
        ("container_7_1_01_000001", "container_7_2_02_000001", Proof.ALIVE),
        ("", "container_7_1_02_000001", Proof.ALIVE),
        ("", "", Proof.ALIVE),
    ],
)
def test_an_earlier_attempt_of_an_application_is_over(holder, observer, proof):
    one, other = (ProcessIdentity.here({"CONTAINER_ID": name}) for name in (holder, observer))
    assert wire.from_json(ProcessIdentity, wire.to_json(one)).judged_from(other) is proof


def test_a_reused_process_id_is_another_process():
    here = ProcessIdentity.here({})
    assert replace(here, start=here.start - 1).judged_from(here) is Proof.DEAD
    assert replace(here, machine="").judged_from(replace(here, machine="")) is Proof.NONE
