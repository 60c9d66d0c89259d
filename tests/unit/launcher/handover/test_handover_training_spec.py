"""What a role host writes for its training process is what that reads."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tfos.arrow_feed.schema import FeedColumn, FeedSchema
from tfos.launcher.application.shipped import UnpackedApplication
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.launcher.role.ports import address_towards, reserve_port
from tfos.read_plan import FeedPosition
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey
from tfos.training_parts import ProcessFacts


@pytest.mark.parametrize("continue_at", [None, FeedPosition(1, 20)])
def test_the_spec_survives_its_file_and_is_private(
    tmp_path: Path, continue_at: FeedPosition | None
):
    chief, ps = TaskKey(Role.CHIEF, 0), TaskKey(Role.PS, 0)
    spec = TrainingSpec(
        facts=ProcessFacts(
            job_name="fm",
            run_id="r1",
            generation=2,
            key=ps,
            cluster=ClusterSpec({chief: Endpoint("h", 1), ps: Endpoint("h", 2)}),
            trainers=(chief,),
            row_orders=(0, 7),
            params={"a": "1"},
            args=("x",),
            checkpoint_every_s=5.0,
            model_dir="/m",
        ),
        arch="ps",
        trains=False,
        job_file="/j",
        application=UnpackedApplication("/unpacked", ("", "shop"), "/home/me"),
        program="/home/me/shop/app.py",
        schemas={"train": FeedSchema((FeedColumn("x", "float32"),))},
        spool="/s",
        feed_index=0,
        continue_at=continue_at,
        checkpoint_url=None,
        checkpoint_keep=3,
        passed_over=(),
        wait_timeout_s=1.5,
        log_level="info",
    )
    path = tmp_path / "spec.json"
    spec.write(str(path))
    assert TrainingSpec.read(str(path)) == spec
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        spec.write(str(path))


def test_a_reserved_port_can_be_shared_by_its_own_user_only_on_purpose():
    import socket

    with reserve_port("127.0.0.1") as endpoint:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(tuple(endpoint))
        with socket.socket() as training:
            training.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            training.bind(tuple(endpoint))
            training.listen()
    with socket.socket() as after:
        after.bind(tuple(endpoint))


def test_the_address_is_the_one_on_the_way_to_the_registry():
    assert address_towards(Endpoint("127.0.0.1", 2181)) == "127.0.0.1"
