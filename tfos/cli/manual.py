"""Lay out ``pl_submit --help`` as a manual: options by section, architectures, exit codes."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import click

from tfos.architectures import architecture_names
from tfos.errors import ExitCode
from tfos.frameworks.contract import load_framework
from tfos.options import OUTPUT, SECTIONS

__all__ = ["ManualCommand", "SectionOption", "exit_code_meanings"]

_EXAMPLES = """\
pl_submit app.py                                       one process, this machine
pl_submit --arch ps --num-ps 1 --num-workers 2 app.py  parameter servers, this machine
pl_submit --arch session app.py:SessionJob -- --fast   a class by name, job arguments
pl_submit --checkpoint-dir ckpt --model-dir out -p epochs=10 app.py
pl_submit --master 'local-cluster[4,1,1024]' --arch ps --result-json run.json app.py
pl_submit --master yarn --arch ps --worker-memory 4g --dry-run app.py"""

_PRECEDENCE = """\
Settings come from, the later the stronger: tfos's defaults; every *.yaml of $TFOS_CONF_DIR (else
~/.config/tfos) in name order; each --conf FILE; the command line. Mappings such as params and
spark.conf are merged key by key, everything else is replaced. --dry-run shows the outcome;
docs/configuration.md describes every setting."""

_INTERRUPT = """\
Ctrl-C or SIGTERM ends the run cleanly: roles are stopped, Spark is stopped, the record is
written. A second one kills it at once."""


class SectionOption(click.Option):
    """An option that belongs to a section of the manual."""

    def __init__(self, *args: Any, section: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section


class ManualCommand(click.Command):
    """A command whose help shows options by section, and what a stranger needs to know besides."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under a heading for each section."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                name = param.section if isinstance(param, SectionOption) else OUTPUT
                sections[name].append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=28)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, architectures, precedence, interruption and exit codes."""
        with formatter.section("Examples"):
            for line in _EXAMPLES.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        with formatter.section("Architectures"):
            names = architecture_names()
            formatter.write_dl([(name, load_framework(name).summary) for name in names])
        for name, text in (("Settings", _PRECEDENCE), ("Ending a run", _INTERRUPT)):
            with formatter.section(name):
                formatter.write_text(text)
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [(str(int(code)), meaning) for code, meaning in exit_code_meanings().items()]
            )


def exit_code_meanings() -> dict[ExitCode, str]:
    """Return what each exit code means: the text below each member of `ExitCode`."""
    meanings = {code: code.name.lower().replace("_", " ") for code in ExitCode}
    try:
        source = inspect.getsource(ExitCode)
    except OSError:
        # Installed without sources: the names have to do.
        return meanings
    name = ""
    for statement in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                continue
            case ast.Expr(value=ast.Constant(value=str() as text)) if name:
                meanings[ExitCode[name]] = text.replace("``", "")
    return meanings
