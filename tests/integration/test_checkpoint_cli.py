from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.nobody import BECOME_NOBODY

from tfos.fault.checkpoints.store import CheckpointStore


def write(directory: str) -> None:
    Path(directory, "state.index").write_bytes(b"i" * 24)
    Path(directory, "state.data").write_bytes(b"d" * 3000)


def tfos(
    *args: str, program: str = "from tfos.cli.main import main; main()", **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, "checkpoints", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "80", "TZ": "Asia/Kolkata", **env},
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Two jobs: one with a damaged and two unfinished checkpoints, one in order."""
    root = tmp_path_factory.mktemp("store")
    clicks = CheckpointStore(str(root), "clicks", keep=9, run_id="20260101-120000-abc123")
    for step in (1000, 2000, 3000, 4000):
        clicks.save(step, 2, write)
    clicks.write_report("20260101-120000-abc123", {"outcome": "done"})
    (root / "clicks" / "ckpt-000000003000-g2" / "state.data").write_bytes(b"d" * 7)
    (root / "clicks" / "ckpt-000000004000-g2" / "COMMITTED").unlink()
    (root / "clicks" / ".staging-0123").mkdir()
    (root / "clicks" / ".staging-0123" / "half").write_bytes(b"h" * 100)
    CheckpointStore(str(root), "fm").save(5, 1, write)
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("mine")
    return root


def lines_of(text: str, job: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(rf" >? +{job} ", line)]


def test_people_see_whose_how_far_how_old_how_large_and_why_not(kept):
    told = tfos(str(kept))
    assert (told.returncode, told.stderr) == (0, "")
    newest, older, damaged, cut, uncommitted = lines_of(told.stdout, "clicks")
    columns = r"clicks +{} +\d{{4}}-\d\d-\d\d [\d:]{{8}} \(\d+ \w+ ago\) +{} +2 +{} +2 +{} *$"
    run = "20260101-120000-abc123"
    assert re.match(" > +" + columns.format("2,000", "3.0 KiB", run, "complete"), newest)
    assert re.match(" +" + columns.format("1,000", "3.0 KiB", run, "complete"), older)
    assert re.match(" +" + columns.format("3,000", "31 B", run, "damaged"), damaged)
    assert re.match(r" +clicks +- +- +100 B +1 +- +- +unfinished *$", cut)
    assert re.match(r" +clicks +4,000 +- +3.0 KiB +2 +- +2 +unfinished *$", uncommitted)
    assert "state.data of" in told.stdout
    assert "has 7 bytes, expected 3000" in told.stdout
    (fm,) = lines_of(told.stdout, "fm")
    assert fm.startswith(" > ")
    assert "empty" not in told.stdout
    assert "notes" not in told.stdout
    assert "reports" not in told.stdout


def test_the_time_is_local(kept):
    shown = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", tfos(str(kept), "--name", "fm").stdout)
    created = json.loads(tfos(str(kept), "--name", "fm", "--json").stdout)[0]["created"]
    in_kolkata = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(created + 5.5 * 3600))
    assert shown[0] == in_kolkata


def test_programs_get_json(kept):
    told = tfos(str(kept), "--json")
    assert told.returncode == 0
    listed = json.loads(told.stdout)
    assert [(e["job"], e["step"], e["state"], e["resumes"]) for e in listed] == [
        ("clicks", 2000, "complete", True),
        ("clicks", 1000, "complete", False),
        ("clicks", 3000, "damaged", False),
        ("clicks", None, "unfinished", False),
        ("clicks", 4000, "unfinished", False),
        ("fm", 5, "complete", True),
    ]
    assert listed[0] == {
        "job": "clicks",
        "path": f"{kept}/clicks/ckpt-000000002000-g2",
        "state": "complete",
        "why": "",
        "step": 2000,
        "generation": 2,
        "size_bytes": 3024,
        "files": 2,
        "run_id": "20260101-120000-abc123",
        "created": pytest.approx(time.time(), abs=600),
        "resumes": True,
        "verified": False,
    }


def test_what_it_says_is_resumed_from_is_what_the_store_gives(kept):
    marked = [entry for entry in json.loads(tfos(str(kept), "--json").stdout) if entry["resumes"]]
    assert [entry["path"] for entry in marked] == [
        CheckpointStore(str(kept), name).latest().path for name in ("clicks", "fm")
    ]


def test_verify_finds_a_changed_byte_and_moves_the_mark(kept, tmp_path):
    store = CheckpointStore(str(tmp_path), "fm")
    store.save(1, 1, write)
    newest = store.save(2, 1, write)
    Path(newest.path, "state.data").write_bytes(b"d" * 2999 + b"e")
    assert json.loads(tfos(str(tmp_path), "--json").stdout)[0]["state"] == "complete"
    told = tfos(str(tmp_path), "--json", "--verify")
    damaged, older = json.loads(told.stdout)
    assert (damaged["state"], damaged["resumes"], older["resumes"]) == ("damaged", False, True)
    assert "state.data of" in damaged["why"]
    assert "not what was saved" in damaged["why"]
    assert older["verified"]
    table = tfos(str(tmp_path), "--verify")
    assert table.returncode == 0
    assert "complete, verified" in table.stdout
    assert f"damaged: {newest.path}: state.data of" in table.stdout


def test_one_job_and_an_empty_place(kept, tmp_path):
    told = tfos(str(kept), "--name", "fm")
    assert lines_of(told.stdout, "fm")
    assert not lines_of(told.stdout, "clicks")
    assert tfos(str(tmp_path)).stdout == f"no checkpoints under {tmp_path}\n"
    assert json.loads(tfos(str(tmp_path), "--json").stdout) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://bucket/x", "Protocol not known"),
        ("{root}/absent", "there is nothing at"),
        ("{root}/notes.txt", "is a file"),
        ("{root}/clicks", "use `tfos checkpoints {root} --name clicks`"),
    ],
)
def test_a_bad_url_is_told_in_one_line(kept, url, said):
    told = tfos(url.format(root=kept))
    assert told.returncode == 2
    assert said.format(root=kept) in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert told.stdout == ""


def test_a_job_that_is_not_there_is_told_with_those_that_are(kept):
    told = tfos(str(kept), "--name", "click")
    assert told.returncode == 2
    assert "found clicks, empty, fm" in told.stderr


def test_a_storage_that_cannot_be_read_is_an_infrastructure_error(kept, tmp_path):
    link = tmp_path / "loop"
    link.symlink_to(link)
    told = tfos(str(link))
    assert told.returncode == 5
    assert "cannot be listed" in told.stderr


FORBIDDEN = f"""
import rich.console, rich.progress
from tfos.cli.main import main
{BECOME_NOBODY}
main()
"""


@pytest.fixture
def forbidden():
    """A directory with a job that its owner keeps to themselves, and one for everyone."""
    # Not in tmp_path, whose parents are closed to the user that asks.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        for job in ("clicks", "fm"):
            CheckpointStore(place, job).save(5, 1, write)
        os.chmod(f"{place}/clicks", 0)
        yield place
        for job in ("clicks", "fm"):
            os.chmod(f"{place}/{job}", 0o755)


def test_a_job_that_may_not_be_read_is_told_and_the_others_are_listed(forbidden):
    told = tfos(forbidden, "--json", program=FORBIDDEN)
    assert told.returncode == 0, told.stderr
    assert [entry["job"] for entry in json.loads(told.stdout)] == ["fm"]
    (warning,) = told.stderr.splitlines()
    assert re.search(
        rf"checkpoints: warning: job clicks is left out: .*may not read {forbidden}/clicks", warning
    )


def test_a_job_that_may_not_be_read_fails_where_there_is_nothing_else_to_list(forbidden):
    alone = tfos(forbidden, "--name", "clicks", program=FORBIDDEN)
    os.chmod(f"{forbidden}/fm", 0)
    for told in (alone, tfos(forbidden, program=FORBIDDEN)):
        assert (told.returncode, told.stdout) == (5, "")
        assert f"may not read {forbidden}/clicks" in told.stderr
        assert len(told.stderr.splitlines()) == 1


def test_verify_goes_on_past_a_file_that_may_not_be_read(forbidden):
    os.chmod(f"{forbidden}/clicks", 0o755)
    (private,) = Path(forbidden, "clicks").rglob("state.data")
    private.chmod(0)
    told = tfos(forbidden, "--json", "--verify", program=FORBIDDEN)
    assert told.returncode == 0, told.stderr
    verified = {entry["job"]: entry["verified"] for entry in json.loads(told.stdout)}
    assert verified == {"clicks": False, "fm": True}
    assert re.search(rf"warning: not verified: .*may not read {forbidden}/clicks", told.stderr)
    alone = tfos(forbidden, "--name", "clicks", "--verify", program=FORBIDDEN)
    assert (alone.returncode, alone.stdout) == (5, "")


def test_names_in_storage_are_shown_with_nothing_for_a_terminal_to_obey(tmp_path):
    evil = "job\x1b]0;owned\x07\x1b[2A\u202e"
    CheckpointStore(str(tmp_path), "fm").save(5, 1, write)
    (tmp_path / "fm").rename(tmp_path / evil)
    shown = tfos(str(tmp_path))
    text = shown.stdout + shown.stderr
    assert r"job\x1b]0;owned\x07\x1b[2A\u202e" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_help_teaches():
    told = tfos("--help")
    assert told.returncode == 0
    for taught in (
        "Examples:",
        "s3://bucket/ckpt --name clicks",
        "unfinished  a save",
        "Exit codes",
    ):
        assert taught in told.stdout
