"""Tell people on stderr how far a long step is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Progress", "in_words", "percent_of", "stderr_progress"]


@dataclass(frozen=True)
class Progress:
    """Where to tell how far long work is."""

    say: Callable[[str], None]
    """Called with one line at every step."""
    percent: Callable[[int], None]
    """Called with how much of the step is done, 0 to 100, when that changes."""


def percent_of(total_bytes: int, progress: Progress) -> Callable[[int], None]:
    """Return what takes how many bytes were done since, and tells `progress` the percentage."""
    done = told = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        now = min(100, 100 * done // max(total_bytes, 1))
        if now != told:
            told = now
            progress.percent(now)

    return advance


def in_words(size_bytes: int) -> str:
    """Return a size as people say it, such as ``729 MB``."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


@contextmanager
def stderr_progress() -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, a line each quarter elsewhere."""
    if not sys.stderr.isatty():
        yield Progress(_print, _Quarters())
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    with Bar(
        BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=100, visible=False)

        def percent(done: int) -> None:
            bar.update(task, completed=done, visible=done < 100)

        yield Progress(console.print, percent)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Quarters:
    """Tell a log how far a step is, once each quarter."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, percent: int) -> None:
        quarter = percent // 25
        if quarter < self._told:
            self._told = 0  # the next step
        if quarter > self._told:
            self._told = quarter
            _print(f"{percent} %")
