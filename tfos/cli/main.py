"""Parse the command line: build the `JobConfig`, call the launcher, map errors to exit codes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tfos import __version__
from tfos.architectures import architecture_names
from tfos.cli.checkpoints import checkpoints
from tfos.cli.horovod import horovod
from tfos.cli.manual import ManualCommand, SectionOption
from tfos.cli.yarn import kill, logs, status
from tfos.config import JobConfig
from tfos.config_files import known_settings, load
from tfos.errors import ConfigError, TfosError
from tfos.launcher.submit import client
from tfos.machine_faults import explained_machine_faults
from tfos.option_names import SETTING_OF_OPTION
from tfos.terminal import one_line

__all__ = ["main", "pl_submit"]


def _pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str] | None:
    """Read ``KEY=VALUE`` options; a value may be empty and may hold further equals signs."""
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (equals and key.strip()):
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", ctx, param)
        pairs[key.strip()] = text
    return pairs or None


def _files(
    ctx: click.Context, param: click.Parameter, values: tuple[Path, ...]
) -> tuple[Path, ...]:
    """Refuse ``KEY=VALUE`` where a file is meant, and name the option that takes it."""
    for value in values:
        key, equals, text = str(value).partition("=")
        if not equals or value.exists():
            continue
        if key in set(known_settings()):
            options = {SETTING_OF_OPTION.get(p.name or ""): p for p in ctx.command.params}
            instead = f"a setting is a line '{key}: {text}' of such a file"
            if key in options:
                instead = f"the option of that setting is {max(options[key].opts, key=len)}"
        elif key.startswith("spark."):
            instead = f"a Spark property is --spark-conf {value}"
        else:
            instead = f"a parameter of the job is -p {value}, a Spark property --spark-conf {value}"
        raise click.BadParameter(f"{str(value)!r} is not a FILE of settings: {instead}", ctx, param)
    return values


def _option(section: str, *names: str, **attributes: Any) -> Callable[..., Any]:
    return click.option(*names, cls=SectionOption, section=section, **attributes)


def _submit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_WHERE, _ROLES = "Where it runs", "Roles"
_STATE, _CODE, _SAYS = "State and data", "Code and settings", "What it says"
_OPTIONS = (
    _option(
        _WHERE,
        "--master",
        metavar="MASTER",
        help="local (default: this machine, one process per role), local[N], "
        "local-cluster[N,CORES,MB] (executors in JVMs of their own), spark://HOST:PORT, yarn, "
        "k8s://URL.",
    ),
    _option(
        _WHERE,
        "--deploy-mode",
        type=click.Choice(["client", "cluster"]),
        help="Where the driver runs: here (client, default) or in the cluster.",
    ),
    _option(_WHERE, "--queue", metavar="NAME", help="YARN queue."),
    _option(_WHERE, "--priority", type=int, metavar="N", help="YARN priority: higher goes first."),
    _option(
        _WHERE,
        "--tags",
        multiple=True,
        metavar="TAGS",
        help="YARN tags to find the application by, separated by commas.",
    ),
    _option(
        _WHERE,
        "--no-wait",
        "wait",
        flag_value=False,
        default=None,
        help="In cluster mode: print the application's id as JSON and return; `tfos status`, "
        "`tfos logs` and `tfos kill` take it.",
    ),
    _option(
        _WHERE,
        "--encrypt",
        is_flag=True,
        default=None,
        help="Authenticate and encrypt Spark's connections and local files; see docs/security.md.",
    ),
    _option(
        _WHERE,
        "--principal",
        metavar="NAME",
        help="Kerberos principal that Spark logs in as (YARN, Kubernetes); with --keytab.",
    ),
    _option(_WHERE, "--keytab", metavar="FILE", help="File with that principal's keys."),
    _option(
        _WHERE,
        "--env",
        metavar="ENV",
        help="Python environment of the containers: none (default: theirs), venv:DIRECTORY, "
        "conda:NAME (packed and shipped once), archive:URL, docker:IMAGE.",
    ),
    _option(
        _WHERE,
        "--zookeeper",
        metavar="HOSTS/PATH",
        help="HOST:PORT[,HOST:PORT...][/PATH] of a ZooKeeper to meet at; by default one is "
        "started with the driver.",
    ),
    _option(
        _ROLES,
        "--arch",
        type=click.Choice(architecture_names()),
        help="Architecture; see below. Default: local.",
    ),
    _option(
        _ROLES,
        "--keras",
        type=click.Choice(["2", "3"]),
        help="What tf.keras is in every process: 2 (tf_keras, default) or 3. --arch ps and ring "
        "need 2.",
    ),
    _option(_ROLES, "--num-ps", type=int, metavar="N", help="Parameter servers. Default: 1."),
    _option(_ROLES, "--num-workers", type=int, metavar="N", help="Workers. Default: 2."),
    *(
        _option(
            _ROLES,
            f"--{role}-memory",
            metavar="SIZE",
            help=f"All the memory {owner} may use, such as 2g (YARN, Kubernetes).",
        )
        for role, owner in (("ps", "a PS"), ("worker", "a worker"), ("chief", "the chief"))
    ),
    *(
        _option(
            _ROLES,
            f"--{role}-cores",
            type=int,
            metavar="N",
            help=f"CPU cores of {owner}: the size of TensorFlow's thread pools.",
        )
        for role, owner in (("ps", "a PS"), ("worker", "a worker"), ("chief", "the chief"))
    ),
    _option(
        _ROLES,
        "--worker-gpus",
        type=int,
        metavar="N",
        help="GPUs of a worker (YARN, Kubernetes).",
    ),
    _option(
        _STATE,
        "--name",
        metavar="NAME",
        help="Job name; checkpoints belong to it. Default: the Job class's name.",
    ),
    _option(
        _STATE,
        "--checkpoint-dir",
        metavar="DIR",
        help="Directory or URL for checkpoints; a run with the same name and directory continues "
        "from the latest complete one.",
    ),
    _option(
        _STATE,
        "--fresh",
        is_flag=True,
        default=None,
        help="Remove this job's checkpoints first and start over.",
    ),
    _option(
        _STATE,
        "--warm-start",
        metavar="DIR",
        help="Begin from the variables that fit of another job's checkpoints, of one checkpoint "
        "or of a SavedModel; the job's own checkpoints come first.",
    ),
    _option(_STATE, "--model-dir", metavar="DIR", help="Where ctx.export puts SavedModels."),
    _option(
        _STATE,
        "--max-restarts",
        type=int,
        metavar="N",
        help="Restarts allowed in any 10 minutes before the run is given up; 0: none. Default: 3.",
    ),
    _option(
        _STATE,
        "--stall-timeout",
        metavar="TIME",
        help="Longest time without a new step before a process is taken for hung. Default: 15m.",
    ),
    _option(
        _STATE,
        "--inject",
        multiple=True,
        metavar="FAULT",
        help="Cause a fault on purpose, to see the job recover: ACTION:TARGET@POINT, such as "
        "kill:worker-0@step=100, stop:ps-0@feed, kill:chief-0/executor@checkpoint. Repeatable; "
        "docs/fault-drills.md has them all.",
    ),
    _option(
        _STATE,
        "--timeout",
        metavar="TIME",
        help="Longest run, all in: 90, 90s, 15m, 2h. Default: no limit.",
    ),
    _option(
        _CODE,
        "-p",
        "--param",
        callback=_pairs,
        multiple=True,
        metavar="KEY=VALUE",
        help="A parameter for ctx.params and job.params. Repeatable.",
    ),
    _option(
        _CODE,
        "--conf",
        "conf_files",
        type=click.Path(path_type=Path),
        callback=_files,
        multiple=True,
        metavar="FILE",
        help="A YAML file of settings. Repeatable, the last one wins.",
    ),
    _option(
        _CODE,
        "--spark-conf",
        callback=_pairs,
        multiple=True,
        metavar="KEY=VALUE",
        help="A Spark property. Repeatable. Secrets belong in a --conf FILE instead: a command "
        "line can be read by other users.",
    ),
    _option(
        _CODE,
        "--py-files",
        multiple=True,
        metavar="FILES",
        help="Python files or zips for every process, separated by commas.",
    ),
    _option(
        _CODE,
        "--files",
        multiple=True,
        metavar="FILES",
        help="Files for every executor, separated by commas.",
    ),
    _option(
        _CODE,
        "--archives",
        multiple=True,
        metavar="FILES",
        help="Archives to unpack for every executor, separated by commas; FILE#NAME names the "
        "directory.",
    ),
    _option(
        _SAYS,
        "--result-json",
        metavar="FILE",
        help="Write a record of the run there, however it ends: outcome, exit code, error, "
        "failures, metrics, paths.",
    ),
    _option(
        _SAYS,
        "--dry-run",
        is_flag=True,
        help="Print the configuration, pod templates and the spark-submit command; start nothing.",
    ),
    _option(
        _SAYS,
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="How much tfos itself says. Default: info.",
    ),
)


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"tfos {__version__}")
        ctx.exit()


_version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    cls=SectionOption,
    section=_SAYS,
    help="Show the version and exit.",
)


class _SubmitCommand(ManualCommand):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            left = super().parse_args(ctx, args)
            _refuse_forgotten_param(ctx, given)
            return left
        except click.UsageError as error:
            path = _result_json_in(given)
            if path is not None:
                _fail(ctx, ConfigError(error.format_message()), path, quiet=True)
            raise


def _refuse_forgotten_param(ctx: click.Context, given: Sequence[str]) -> None:
    """Take ``app.py data=x`` for a forgotten ``-p``: the job's own arguments follow ``--``."""
    if "--" in given:
        return
    for argument in ctx.params.get("args", ()):
        if _KEY_VALUE.match(argument):
            raise click.UsageError(
                f"what is {argument!r}? A parameter of the job is -p {argument}; arguments of its "
                f"own follow --: {ctx.params['app']} -- {argument}",
                ctx,
            )


_KEY_VALUE = re.compile(r"[A-Za-z_][\w.-]*=")


def _result_json_in(args: Sequence[str]) -> str | None:
    """Find the record's path among arguments that could not be parsed."""
    for index, arg in enumerate(args):
        if arg.startswith("--result-json="):
            return arg.partition("=")[2]
        if arg == "--result-json" and index + 1 < len(args):
            return args[index + 1]
    return None


@click.command(
    "submit",
    cls=_SubmitCommand,
    options_metavar="[options]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@_submit_options
@_version_option
@click.argument("app", metavar="app.py[:JobClass]")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- job arguments]")
@click.pass_context
def pl_submit(ctx: click.Context, /, app: str, conf_files: tuple[Path, ...], **given: Any) -> None:
    """Train the tfos.Job in APP on Spark and TensorFlow, and wait for it to end.

    APP is a Python file with a subclass of tfos.Job (name the class after a colon when there are
    several). What follows -- goes to the job as ctx.args.
    """
    dry_run = given.pop("dry_run")
    record = None if dry_run else given["result_json"]
    sys.exit(
        _answer(
            ctx,
            conf_files,
            given,
            lambda config, _: client.submit(config, app, dry_run=dry_run),
            record=record,
        )
    )


@click.command(
    "debug",
    options_metavar="[options]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@_submit_options
@click.argument("app", metavar="app.py[:JobClass]")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- job arguments]")
@click.pass_context
def debug(ctx: click.Context, /, app: str, conf_files: tuple[Path, ...], **given: Any) -> None:
    """Run the tfos.Job in APP in this process, on this terminal, for a debugger.

    pre_train runs on a local Spark session, then train, both in this process: breakpoint() and
    print work, and an exception shows its traceback. There is no executor, no ZooKeeper and no
    training process, and nothing is restarted. Takes the options of pl_submit; those that a
    process of its own has no use for, such as --arch, are named and not used.
    """
    if given.pop("dry_run"):
        raise click.UsageError("--dry-run belongs to pl_submit: tfos debug submits nothing", ctx)

    def run(config: JobConfig, options: Mapping[str, str]) -> int:
        # It needs what a training process needs, and takes as long to import.
        from tfos.launcher.in_process import debug as debug_run

        return debug_run.debug(config, app, options)

    sys.exit(_answer(ctx, conf_files, given, run))


def _answer(
    ctx: click.Context,
    conf_files: Sequence[Path],
    given: Mapping[str, Any],
    act: Callable[[JobConfig, Mapping[str, str]], int],
    *,
    record: str | None = None,
) -> int:
    """Resolve the configuration and act on it; return the exit code.

    Parameters
    ----------
    act
        Takes the configuration, and the option that each setting was given by.
    record
        Where the run's record is still owed when there is no configuration.
    """
    config: JobConfig | None = None
    try:
        with explained_machine_faults():
            settings, options = _overrides(ctx, given)
            config = load(conf_files=conf_files, overrides=settings, option_names=options)
            return act(config, options)
    except TfosError as error:
        # From there on the client answers for the record.
        return _fail(ctx, error, record if config is None else None)
    except Exception as error:
        # The last resort of the program: a defect, told in one line and by its exit code.
        if config is None or config.log_level == "debug":
            traceback.print_exc()
        what = f"internal error: {type(error).__name__}: {error} (--log-level debug shows where)"
        return _fail(ctx, TfosError(what), record)


def _overrides(
    ctx: click.Context, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings given on the command line, and the option each came by."""
    settings: dict[str, Any] = {}
    options: dict[str, str] = {}
    flags = {p.name: max(p.opts, key=len) for p in ctx.command.params}
    for name, value in given.items():
        if value is None or value == ():
            continue
        setting = SETTING_OF_OPTION.get(name, name)
        if name in ("py_files", "files", "archives", "tags"):
            value = [item for group in value for item in group.split(",") if item]
        settings[setting] = list(value) if isinstance(value, tuple) else value
        options[setting] = flags[name]
    return settings, options


def _fail(ctx: click.Context, error: TfosError, record: str | None, quiet: bool = False) -> int:
    """Tell an error in one line, write it to the `record` still owed, return the exit code."""
    messages = [] if quiet else [str(error)]
    if record is not None:
        try:
            client.record_error(record, error)
        except ConfigError as second:
            messages.append(str(second))
    for message in messages:
        click.echo(f"{ctx.command_path}: error: {one_line(message)}", err=True)
    return int(error.exit_code)


@click.group("tfos", context_settings={"help_option_names": ["-h", "--help"]})
@_version_option
def main() -> None:
    """Train TensorFlow as an ordinary PySpark job. `tfos submit` is the same as pl_submit."""


main.add_command(pl_submit)
main.add_command(debug)
main.add_command(checkpoints)
main.add_command(horovod)
main.add_command(status)
main.add_command(logs)
main.add_command(kill)
