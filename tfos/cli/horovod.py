"""Bring Horovod into the Python environment from the command line, and say how far that is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from tfos.errors import ExitCode, TfosError
from tfos.horovod_build import installation
from tfos.horovod_build.wheel_build import KNOWN_TENSORFLOWS, Progress
from tfos.horovod_build.wheel_cache import default_directory
from tfos.machine_faults import explained_machine_faults
from tfos.terminal import one_line, printable_lines

__all__ = ["horovod"]

_EPILOG = f"""\
\b
Examples:
  tfos horovod                                build, install and check; at once if that is done
  tfos horovod --check                        see two ranks reduce with what is installed
  tfos horovod --cache /shared/horovod        keep the wheel where other machines find it
  HOROVOD_GPU_OPERATIONS=NCCL tfos horovod    for GPUs: needs CUDA's nvcc and NCCL

Needs Linux, pip, a C++ compiler and make (apt install g++ make); CMake is fetched where it is
missing. Tried with TensorFlow {" and ".join(KNOWN_TENSORFLOWS)}. docs/horovod.md says more.

\b
Exit codes: 0 it works, 2 something is missing here, 5 the build or the check failed,
130 interrupted."""


@click.command(
    "horovod",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where built wheels are kept, by TensorFlow version. Default: "
    "$XDG_CACHE_HOME/tfos/horovod, that is ~/.cache/tfos/horovod.",
)
@click.option("--check", is_flag=True, help="Only check what is installed; change nothing.")
@click.option("--rebuild", is_flag=True, help="Build and install anew, whatever is there.")
@click.pass_context
def horovod(ctx: click.Context, cache: Path | None, check: bool, rebuild: bool) -> None:
    """Install Horovod for the TensorFlow of this Python environment, and check that it reduces.

    Horovod has no ready-made wheels: it is compiled for one TensorFlow version, which takes two or
    three minutes on two cores. The wheel is kept, so that this is done once for each version.
    """
    if check and rebuild:
        raise click.UsageError("--check changes nothing: give it or --rebuild", ctx)
    try:
        with explained_machine_faults(), _interruptible(), _progress() as progress:
            if check:
                installation.check(progress)
            else:
                root = (cache or default_directory(os.environ)).absolute()
                installation.provide(root, progress, rebuild=rebuild)
    except TfosError as error:
        last_lines = getattr(error, "last_lines", "")
        if last_lines:
            click.echo(printable_lines(last_lines), err=True)
        click.echo(f"{ctx.command_path}: error: {one_line(str(error))}", err=True)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        click.echo(f"{ctx.command_path}: interrupted", err=True)
        sys.exit(int(ExitCode.INTERRUPTED))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM and SIGHUP for a Ctrl-C: all of them leave nothing behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _progress() -> Iterator[Progress]:
    if sys.stdout.isatty():
        with _bar() as progress:
            yield progress
    else:
        yield Progress(click.echo, _Quarters())


class _Quarters:
    """Tell a log how far the compiler is, once each quarter."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, percent: int) -> None:
        if percent // 25 > self._told:
            self._told = percent // 25
            click.echo(f"compiled: {percent} %")


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("compiling"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(markup=False, highlight=False, soft_wrap=True)
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=100, visible=False)

        def percent(done: int) -> None:
            bar.update(task, completed=done, visible=done < 100)

        yield Progress(console.print, percent)
