"""Parse the command line: build the `JobConfig`, call the launcher, map errors to exit codes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from tfos import __version__
from tfos.cli.checkpoints import checkpoints
from tfos.cli.horovod import horovod
from tfos.cli.manual import ManualCommand, SectionOption
from tfos.cli.yarn import kill, logs, status
from tfos.config import JobConfig
from tfos.config_files import known_settings, load
from tfos.errors import ConfigError, TfosError
from tfos.launcher.submit import client
from tfos.machine_faults import explained_machine_faults
from tfos.option_names import SETTING_OF_OPTION, SETTING_OPTIONS, SettingOption, default_text
from tfos.options import CODE, OUTPUT, Option
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


def _split(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Read lists separated by commas."""
    return tuple(item for group in values for item in group.split(",") if item)


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


def _click_option(given: SettingOption) -> Callable[..., Any]:
    """Return the option of a setting, as its definition describes it."""
    option, field = given.option, given.field
    names = [name for name in (option.short, given.flag, given.name) if name is not None]
    return click.option(
        *names,
        cls=SectionOption,
        section=option.section,
        metavar=option.metavar,
        help=option.help or _help_of(field, option),
        **_kind_of(field, option),
    )


def _kind_of(field: FieldInfo, option: Option) -> dict[str, Any]:
    """Return what tells click which values an option takes. Text is checked with the settings."""
    kind = field.annotation
    if get_origin(kind) is dict:
        return {"multiple": True, "callback": _pairs}
    if get_origin(kind) is list:
        return {"multiple": True, "callback": _split if option.commas else None}
    if option.choices is not None:
        return {"type": click.Choice(option.choices())}
    if get_origin(kind) is Literal:
        return {"type": click.Choice([str(word) for word in get_args(kind)])}
    if kind is bool:
        # Not given is neither true nor false: a file of settings may say.
        return {"default": None, **({"flag_value": False} if option.negates else {"is_flag": True})}
    return {"type": int} if kind is int or int in get_args(kind) else {}


def _help_of(field: FieldInfo, option: Option) -> str:
    texts = [field.description or ""]
    default = default_text(field)
    if default not in _NO_DEFAULTS:
        texts.append(f"Default: {default}.")
    if option.commas:
        texts.append("Separated by commas, or repeated.")
    elif get_origin(field.annotation) in (dict, list):
        texts.append("Repeatable.")
    return " ".join(texts)


_NO_DEFAULTS = ("null", "false", "true", "0", "[]", "{}")
_PLAIN_OPTIONS = (
    click.option(
        "--conf",
        "conf_files",
        cls=SectionOption,
        section=CODE,
        type=click.Path(path_type=Path),
        callback=_files,
        multiple=True,
        metavar="FILE",
        help="A YAML file of settings. Repeatable, the last one wins.",
    ),
    click.option(
        "--dry-run",
        cls=SectionOption,
        section=OUTPUT,
        is_flag=True,
        help="Print the configuration, pod templates and the spark-submit command; start nothing.",
    ),
)


def _submit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (*_PLAIN_OPTIONS, *map(_click_option, reversed(SETTING_OPTIONS))):
        command = option(command)
    return command


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
    section=OUTPUT,
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
