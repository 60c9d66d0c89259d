"""Look at, read and end runs on YARN, from wherever its configuration is."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tfos.config import JobConfig
from tfos.config_files import load
from tfos.errors import TfosError
from tfos.launcher.platform.paths import resolve_paths
from tfos.launcher.platform.yarn_client import Application, YarnClient
from tfos.launcher.submit.yarn_runs import (
    clear_up_after,
    end_application,
    find_application,
    read_logs,
    read_record,
)
from tfos.machine_faults import current_directory, explained_machine_faults
from tfos.terminal import one_line, printable_lines

__all__ = ["kill", "logs", "status"]

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_CODES = "\b\nExit codes: 0 done, 2 no such application or a wrong setting, 5 YARN does not answer."


def _answered(what: Callable[..., None]) -> Callable[..., None]:
    """Turn tfos's errors into one line and their exit codes."""

    def run(ctx: click.Context, /, **given: Any) -> None:
        try:
            with explained_machine_faults():
                what(**given)
        except TfosError as error:
            click.echo(f"{ctx.command_path}: error: {one_line(str(error))}", err=True)
            sys.exit(int(error.exit_code))

    run.__doc__ = what.__doc__
    return click.pass_context(run)


def _load(conf_files: tuple[Path, ...]) -> JobConfig:
    return resolve_paths(load(conf_files=conf_files), current_directory())


_which = click.argument("which", metavar="APP_OR_JOB")
_conf = click.option(
    "--conf",
    "conf_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A YAML file of settings, beside those of the configuration directory: one that the run "
    "was submitted with, where it sets spark.staging_dir. Repeatable, the last one wins.",
)


@click.command("status", context_settings=_SETTINGS, epilog=_CODES)
@_which
@_conf
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@_answered
def status(which: str, conf_files: tuple[Path, ...], as_json: bool) -> None:
    """Say what became of a run on YARN: its state there, and its record where it has one.

    APP_OR_JOB is an application's id (application_...), or a job's --name: your latest run of it.
    """
    config = _load(conf_files)
    with YarnClient.open() as yarn:
        application = find_application(yarn, which)
    record = read_record(config, application)
    if as_json:
        told = {**asdict(application), "run": None if record is None else record.to_json()}
        click.echo(json.dumps(told, indent=2))
        return
    for name, value in _described(application):
        click.echo(f"{name:14} {one_line(value)}")
    if record is not None:
        click.echo(f"{'run':14} {record.outcome}, exit code {record.exit_code}")
        click.echo(f"{'steps':14} {record.steps}")
        if record.error:
            click.echo(f"{'error':14} {one_line(record.error)}")


def _described(application: Application) -> list[tuple[str, str]]:
    told = [
        ("application", application.id),
        ("name", application.name),
        ("user, queue", f"{application.user}, {application.queue}"),
        ("state", f"{application.state} {application.final_status}"),
        ("tracking URL", application.tracking_url),
        ("diagnostics", " ".join(re.sub(r"\s+", " ", application.diagnostics).split())[:600]),
    ]
    return [(name, value) for name, value in told if value.strip()]


@click.command("logs", context_settings=_SETTINGS, epilog=_CODES)
@_which
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a file a container there, instead of everything to standard output.",
)
@_answered
def logs(which: str, directory: Path | None) -> None:
    """Fetch the output of a run's containers, while it runs and afterwards.

    Afterwards they come from where YARN aggregates logs; a cluster that does not leaves them with
    its NodeManagers, whose pages the tracking URL of `tfos status` leads to.
    """
    with YarnClient.open() as yarn, tempfile.TemporaryDirectory(prefix="tfos-logs-") as room:
        application = find_application(yarn, which)
        for path in read_logs(yarn, application, directory or Path(room)):
            if directory is not None:
                click.echo(str(path))
                continue
            click.echo(f"==> {path.relative_to(room)} <==")
            click.echo(printable_lines(path.read_text(errors="replace")))


@click.command("kill", context_settings=_SETTINGS, epilog=_CODES)
@_which
@_conf
@_answered
def kill(which: str, conf_files: tuple[Path, ...]) -> None:
    """End a run on YARN: in order where its driver is in the cluster, else at once.

    A driver that has not ended within a minute is killed. What a killed driver left in an external
    ZooKeeper is removed, also that of an application which had ended before.
    """
    config = _load(conf_files)
    with YarnClient.open() as yarn:
        application = find_application(yarn, which)
        if application.ended:
            click.echo(f"{application.id} had ended: {application.final_status}")
        else:
            application = end_application(yarn, config, application)
            click.echo(f"{application.id} {application.state} {application.final_status}")
    if application.ended:
        clear_up_after(config, application)
