"""What --warm-start may name."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from support.checkpoint_places import Place

from tfos.errors import CheckpointCorruptError, CheckpointError, ConfigError
from tfos.fault.checkpoints.source import find_source


@pytest.fixture(params=["file", "memory"])
def place(request, tmp_path):
    return Place(
        str(tmp_path / "store") if request.param == "file" else f"memory://{uuid.uuid4().hex}/store"
    )


def state(text: str):
    def write(directory: str) -> None:
        Path(directory, "state.index").write_text(text)
        Path(directory, "state.data-00000-of-00001").write_text(text)

    return write


def content(prefix: str) -> str:
    return Path(f"{prefix}.index").read_text()


def test_a_job_and_one_of_its_checkpoints(place, tmp_path):
    store = place.store()
    first = store.save(1, 1, state("one"))
    store.save(2, 1, state("two"))
    target = tmp_path / "downloads"
    target.mkdir()
    assert content(find_source(f"{place.url}/fm/").fetch(str(target))) == "two"
    assert content(find_source(first.path).fetch(str(target))) == "one"


def test_a_saved_model(place, tmp_path):
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-0"):
        place.fs.makedirs(f"{place.root}/fm/7/variables", exist_ok=True)
        place.write(f"7/{name}", b"model")
    target = tmp_path / "downloads"
    target.mkdir()
    prefix = find_source(f"{place.url}/fm/7").fetch(str(target))
    assert Path(prefix).name == "variables"
    assert content(prefix) == "model"


def test_a_file_is_told_as_one(tmp_path):
    (tmp_path / "weights.h5").touch()
    with pytest.raises(ConfigError, match=r"--warm-start \S*weights.h5 is a file: expected"):
        find_source(str(tmp_path / "weights.h5"))


def test_nothing_of_the_kind_is_told_before_training(place, tmp_path):
    with pytest.raises(ConfigError, match=r"--warm-start .* holds nothing to begin from"):
        find_source(f"{place.url}/fm")
    info = place.store().save(1, 1, state("one"))
    place.remove(f"{info.name}/MANIFEST.json")
    with pytest.raises(CheckpointCorruptError, match="is no complete checkpoint"):
        find_source(info.path)
    other = place.store().save(2, 1, lambda d: Path(d, "weights.npz").write_text("x"))
    with pytest.raises(ConfigError, match=r"expected one file named \*.index, found weights.npz"):
        find_source(other.path).fetch(str(tmp_path))
    place.write(f"{other.name}/weights.npz", b"y")
    with pytest.raises(CheckpointError, match="is not what was saved"):
        find_source(other.path).fetch(str(tmp_path))
