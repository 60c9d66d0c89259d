from __future__ import annotations

import os
from pathlib import Path

import pytest

from tfos.fault.processes.bounded_log import BoundedLog
from tfos.fault.processes.output import OutputLimits, OutputReader, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reader(tmp_path: Path):
    made: list[OutputReader] = []

    def make(sink=None, clock=None, **limits) -> tuple[OutputReader, list[str]]:
        lines: list[str] = []
        bounds = OutputLimits(**limits)
        log = BoundedLog(str(tmp_path / "log"), bounds.head_bytes, bounds.tail_bytes)
        made.append(OutputReader("worker-1", log, sink or lines.append, bounds, clock or Clock()))
        return made[-1], lines

    yield make
    for out in made:
        out.finish()


def test_lines_are_prefixed_joined_across_chunks_and_flushed_at_the_end(reader, tmp_path):
    out, lines = reader()
    out.feed(b"one\ntw")
    out.feed(b"o\n\npartial")
    assert lines == ["[worker-1] one", "[worker-1] two", "[worker-1] "]
    out.finish()
    assert lines[-1] == "[worker-1] partial"
    assert out.last_lines == ("one", "two", "", "partial")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n\npartial"


def test_bytes_that_are_not_utf8_are_replaced_but_logged_as_they_are(reader, tmp_path):
    out, lines = reader()
    out.feed(b"\xff\xfeok \xc3\xa9\n")
    out.finish()
    assert lines == ["[worker-1] \ufffd\ufffdok é"]
    assert (tmp_path / "log").read_bytes() == b"\xff\xfeok \xc3\xa9\n"


def test_a_progress_bar_shows_its_last_state(reader, tmp_path):
    out, lines = reader()
    out.feed(b"\r10%\r50%\r100%\r\n")
    assert lines == ["[worker-1] 100%"]


def test_long_lines_are_cut_and_endless_ones_do_not_pile_up(reader, tmp_path):
    out, lines = reader(line_chars=10, burst_bytes=1 << 30)
    out.feed(b"x" * 25 + b"\n")
    assert lines == ["[worker-1] xxxxxxxxxx... (25 bytes)"]
    for _ in range(100):
        out.feed(b"y" * 60_000)
    assert len(out._partial) < 130_000
    assert all(len(line) < 60 for line in lines)


def test_last_lines_are_the_last_ones_even_when_nothing_is_forwarded(reader, tmp_path):
    out, _ = reader(last_lines=3, burst_bytes=0, rate_bytes_s=0.0)
    out.feed(b"".join(b"%d\n" % i for i in range(1000)))
    assert out.last_lines == ("997", "998", "999")


def test_a_flood_is_left_out_counted_and_resumes(reader, tmp_path):
    clock = Clock()
    out, lines = reader(clock=clock, burst_bytes=20, rate_bytes_s=10.0)
    out.feed(b"aaaa\n" * 10)
    assert lines == ["[worker-1] aaaa"] * 4
    clock.now += 0.9
    out.feed(b"bbbb\n")  # shut until a second's worth is there
    assert len(lines) == 4
    clock.now += 0.2
    out.feed(b"cccc\n")
    assert lines[4:] == [
        f"[worker-1] ... 7 lines left out here, see {tmp_path / 'log'}",
        "[worker-1] cccc",
    ]


def test_lines_left_out_last_are_told_at_the_end(reader, tmp_path):
    out, lines = reader(burst_bytes=5, rate_bytes_s=1.0)
    out.feed(b"aaaa\nbbbb\n")
    out.finish()
    assert lines[1:] == [f"[worker-1] ... 1 lines left out here, see {tmp_path / 'log'}"]


def test_a_sink_that_raises_ends_forwarding_not_reading(reader, tmp_path, caplog):
    calls = []

    def broken(line: str) -> None:
        calls.append(line)
        raise BrokenPipeError("gone")

    out, _ = reader(sink=broken)
    out.feed(b"one\ntwo\n")
    out.finish()
    assert calls == ["[worker-1] one"]
    assert out.last_lines == ("one", "two")
    assert "no longer forwarded" in caplog.text


def test_a_log_that_fails_ends_the_log_not_reading(reader, tmp_path, caplog, monkeypatch):
    out, lines = reader()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BoundedLog, "write", full)
    out.feed(b"one\n")
    out.feed(b"two\n")
    out.finish()
    assert lines == ["[worker-1] one", "[worker-1] two"]
    assert caplog.text.count("No space left") == 1


def test_the_bucket_never_exceeds_its_burst():
    clock = Clock()
    bucket = TokenBucket(10, 5.0, clock)
    clock.now += 1000
    assert bucket.take(10)
    assert not bucket.take(1)
    clock.now += 1000
    assert bucket.take(10)
    assert not bucket.take(10)


@pytest.mark.parametrize("total", [0, 5, 10, 11, 29, 30, 31, 50, 95, 1000])
def test_log_keeps_beginning_and_end_and_says_what_is_missing(tmp_path, monkeypatch, total):
    path = str(tmp_path / "log")
    data = bytes(65 + i % 26 for i in range(total))
    unlink, line = os.unlink, len(b"\n[tfos: 960 bytes left out here]\n")

    def on_disk() -> int:
        return sum(os.path.getsize(tmp_path / n) for n in os.listdir(tmp_path))

    def joined(piece: str) -> None:
        assert on_disk() <= 40 + line
        unlink(piece)

    monkeypatch.setattr(os, "unlink", joined)
    log = BoundedLog(path, head_bytes=10, tail_bytes=30)
    for i in range(0, total, 7):
        log.write(data[i : i + 7])
        assert on_disk() <= 30
    log.close()
    log.close()
    assert os.listdir(tmp_path) == ["log"]
    kept = Path(path).read_bytes()
    if total <= 30:
        assert kept == data
        return
    head, _, rest = kept.partition(b"\n[tfos: ")
    count, _, tail = rest.partition(b" bytes left out here]\n")
    assert head == data[:10]
    assert data.endswith(tail)
    assert len(tail) >= 10
    assert int(count) + len(head) + len(tail) == total
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_log_replaces_what_an_earlier_process_left(tmp_path):
    for name in ("log", "log.tail", "log.tail.old"):
        (tmp_path / name).write_bytes(b"old")
    log = BoundedLog(str(tmp_path / "log"), 10, 20)
    log.write(b"new")
    log.close()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"log": b"new"}
