from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from tfos.errors import CheckpointError, ConfigError
from tfos.files.publish import publish_directory


def model(directory: str) -> None:
    Path(directory, "variables").mkdir()
    Path(directory, "variables", "data").write_bytes(b"w")
    Path(directory, "saved_model.pb").write_bytes(b"pb")


def test_a_model_appears_whole_as_its_version(tmp_path):
    seen = []

    def write(directory: str) -> None:
        model(directory)
        seen.extend(os.listdir(tmp_path / "models"))

    path = publish_directory(write, str(tmp_path / "models"), 120)
    assert path == str(tmp_path / "models" / "120")
    assert len(seen) == 1
    assert not seen[0].isdigit()
    assert os.listdir(tmp_path / "models") == ["120"]
    assert Path(path, "variables", "data").read_bytes() == b"w"


def test_a_version_that_exists_is_left_alone(tmp_path):
    for expected in ("7", "8", "9"):
        path = publish_directory(model, str(tmp_path), 7)
        assert path == str(tmp_path / expected)


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
    day_s = 24 * 3600
    ages_s = {
        f"3.tmp-{'0a' * 16}": day_s + 60,
        f"4.tmp-{'0a' * 16}": day_s - 60,
        "5": 9 * day_s,
        "5.tmp-mine": 9 * day_s,
    }
    for name, age_s in ages_s.items():
        (tmp_path / name).mkdir()
        model(str(tmp_path / name))
        changed = time.time() - age_s
        os.utime(tmp_path / name, (changed, changed))
    publish_directory(model, str(tmp_path), 7)
    assert ages_s.keys() - set(os.listdir(tmp_path)) == {f"3.tmp-{'0a' * 16}"}


def test_what_a_kill_leaves_is_known_by_its_name(tmp_path):
    program = (
        "import os, sys; from tfos.files.publish import publish_directory\n"
        "publish_directory(lambda directory: os._exit(9), sys.argv[1], 3)"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(argv, timeout=60, check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    os.utime(left, (1, 1))
    publish_directory(model, str(tmp_path), 3)
    assert os.listdir(tmp_path) == ["3"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_nothing(tmp_path, error):
    def write(directory: str) -> None:
        model(directory)
        raise error

    with pytest.raises(type(error)):
        publish_directory(write, str(tmp_path), 1)
    assert os.listdir(tmp_path) == []


def test_an_empty_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing is in its directory"):
        publish_directory(lambda d: None, str(tmp_path), 1)
    assert os.listdir(tmp_path) == []


def test_errors_name_the_option(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(CheckpointError, match=r"is not a directory .*--model-dir"):
        publish_directory(model, str(tmp_path / "f"), 1)
    with pytest.raises(ConfigError, match="--model-dir"):
        publish_directory(model, "nosuch://x", 1)
    with pytest.raises(ValueError, match="version"):
        publish_directory(model, str(tmp_path), -1)


def test_a_rename_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def rename(a, b):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CheckpointError, match=r"no space is left .*--model-dir"):
        publish_directory(model, str(tmp_path), 1)
    assert os.listdir(tmp_path) == []


def test_a_remote_model_is_moved_into_place(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/models"
    fs, root = fsspec.core.url_to_fs(url)
    assert publish_directory(model, url, 3) == f"{url}/3"
    assert publish_directory(model, url, 3) == f"{url}/4"
    assert fs.cat_file(f"{root}/4/variables/data") == b"w"
    assert sorted(p.rpartition("/")[2] for p in fs.ls(root, detail=False)) == ["3", "4"]

    def mv(*args, **options):
        raise RuntimeError("503")

    monkeypatch.setattr(type(fs), "mv", mv)
    with pytest.raises(CheckpointError, match=r"503.*--model-dir"):
        publish_directory(model, url, 5)
    assert sorted(p.rpartition("/")[2] for p in fs.ls(root, detail=False)) == ["3", "4"]
