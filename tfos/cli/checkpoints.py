"""Show people and programs the checkpoints that lie under a directory or URL."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import click

from tfos.errors import TfosError
from tfos.fault.checkpoints.listing import (
    CheckpointState,
    ListedCheckpoint,
    list_checkpoints,
    verify_checkpoints,
)
from tfos.machine_faults import explained_machine_faults
from tfos.terminal import one_line, printable

__all__ = ["checkpoints"]

_EPILOG = """\
\b
Examples:
  tfos checkpoints /data/checkpoints                 every job there
  tfos checkpoints s3://bucket/ckpt --name clicks    one job's
  tfos checkpoints hdfs://nn/ckpt --verify           read and compare every file
  tfos checkpoints ckpt --json | jq '.[] | select(.resumes).path'

\b
The mark > is on what the next run of that job resumes from: its newest complete one.
  complete    committed, its files all there in their sizes (--verify: and their content)
  damaged     committed, but changed since: a resume passes it over
  unfinished  a save that is under way or was interrupted: to a resume it is not there

\b
Exit codes: 0 listed, 2 bad or empty URL or job, 5 the storage cannot be read."""

_STYLES = {
    CheckpointState.COMPLETE: "green",
    CheckpointState.DAMAGED: "red",
    CheckpointState.UNFINISHED: "yellow",
}


@click.command(
    "checkpoints",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("url")
@click.option("--name", metavar="JOB", help="List this job's alone.")
@click.option("--verify", is_flag=True, help="Read every file and compare its checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
@click.pass_context
def checkpoints(
    ctx: click.Context, url: str, name: str | None, verify: bool, as_json: bool
) -> None:
    """List the checkpoints under URL: whose, how far, how old, how large, and whether complete.

    URL is what --checkpoint-dir was: a directory, or a URL such as s3://bucket/path or
    hdfs://namenode/path. Nothing is changed.
    """

    def tell(kind: str, what: str) -> None:
        click.echo(f"{ctx.command_path}: {kind}: {one_line(what)}", err=True)

    try:
        with explained_machine_faults():
            listed = list_checkpoints(url, name, lambda what: tell("warning", what))
            if verify:
                listed = _verify(url, listed, lambda what: tell("warning", what))
    except TfosError as error:
        tell("error", str(error))
        sys.exit(int(error.exit_code))
    if as_json:
        click.echo(json.dumps([entry.to_json() for entry in listed], indent=2))
    else:
        _show(url, listed)


def _verify(
    url: str, listed: list[ListedCheckpoint], warn: Callable[[str], None]
) -> list[ListedCheckpoint]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    total = sum(e.size_bytes for e in listed if e.state is CheckpointState.COMPLETE)
    columns = (
        TextColumn("verifying"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        return verify_checkpoints(url, listed, lambda count: progress.advance(bar, count), warn)


def _show(url: str, listed: list[ListedCheckpoint]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not listed:
        click.echo(f"no checkpoints under {printable(url)}")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for title in ("job", "step", "when", "size", "files", "run", "gen", "state"):
        table.add_column(title, justify="right" if title in ("step", "size", "files") else "left")
    now = time.time()
    for entry in listed:
        state = entry.state.value + (", verified" if entry.verified and not entry.why else "")
        table.add_row(
            ">" if entry.resumes else "",
            printable(entry.job),
            _or_dash(entry.step),
            "-" if entry.created is None else _when(entry.created, now),
            _size(entry.size_bytes),
            str(entry.files),
            printable(entry.run_id or "-"),
            _or_dash(entry.generation),
            Text(state, style=_STYLES[entry.state]),
        )
    console = Console(markup=False, highlight=False)
    # As wide as it needs to be: what is cut off or wrapped can be neither read nor grepped.
    console.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table)
    for entry in listed:
        if entry.why:
            click.echo(f"{entry.state.value}: {printable(f'{entry.path}: {entry.why}')}")


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _when(created: float, now: float) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
    return f"{stamp} ({_ago(now - created)})"


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    # A clock that is behind the writer's must not say "-3 s ago".
    return f"{max(seconds, 0):.0f} s ago"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
