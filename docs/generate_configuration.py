"""Write docs/configuration.md and conf/tfos-defaults.yaml from the settings' one definition.

Run it after changing `tfos.config` or an option of `pl_submit`; ``--check`` only compares.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tfos.config import LOCATION, JobConfig, parse_bytes, parse_duration
from tfos.environment_spec import EnvironmentSpec
from tfos.master import Master
from tfos.option_names import SETTING_OPTIONS, default_text

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"
DEFAULTS = ROOT / "conf" / "tfos-defaults.yaml"
_FLAGS = {each.setting: each.flag for each in SETTING_OPTIONS}

PREFACE = """\
# Configuration

<!-- Written by docs/generate_configuration.py: change tfos/config.py and run `make docs`. -->

Every run has one configuration, validated before anything starts. It is put together from layers,
the later the stronger:

1. the defaults below;
2. every `*.yaml` of the configuration directory, in name order: `$TFOS_CONF_DIR`, else
   `~/.config/tfos`;
3. each `--conf FILE`, in the order given;
4. the command line.

Mappings (`params`, `spark.conf`) are merged key by key; everything else is replaced. A name that
is no setting is refused, with the file, the nearest known name, or the line of a YAML error.
`pl_submit --dry-run` prints what came of it. `conf/tfos-defaults.yaml` is the same list as a file
to copy from, `conf/example-*.yaml` are starting points.

Sizes are bytes, or text such as `512m` and `1.5g` (powers of 1024). Durations are seconds, or text
such as `90s`, `15m` and `2h`. Relative paths, in files too,
start from the current directory of the caller of `pl_submit`, `tfos` or `tfos.run`.
"""

FILE_PREFACE = """\
# Every setting of tfos with its default: a list to copy from. tfos does not read this file.
# Written by docs/generate_configuration.py; docs/configuration.md says more.
"""


def page() -> str:
    """Return the text of docs/configuration.md."""
    blocks = [PREFACE]
    for prefix, model, title in _sections(JobConfig, ""):
        heading = f"## `{prefix.rstrip('.')}`" if prefix else "## The run"
        blocks.append(f"{heading}\n\n{title}\n" if title else f"{heading}\n")
        rows = ["| setting | type | default | option | what it does |", "|---|---|---|---|---|"]
        rows += [_row(prefix + name, field) for name, field in _leaves(model)]
        blocks.append("\n".join(rows) + "\n")
    return "\n".join(blocks)


def defaults_file() -> str:
    """Return the text of conf/tfos-defaults.yaml."""
    return FILE_PREFACE + "\n".join(_yaml_lines(JobConfig, 0)) + "\n"


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel], str]]:
    yield prefix, model, "" if model is JobConfig else (model.__doc__ or "").strip()
    for name, field in model.model_fields.items():
        if _is_section(field):
            yield from _sections(_section(field), f"{prefix}{name}.")


def _leaves(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    return ((name, f) for name, f in model.model_fields.items() if not _is_section(f))


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _section(field: FieldInfo) -> type[BaseModel]:
    return typing.cast(type[BaseModel], field.annotation)


def _row(path: str, field: FieldInfo) -> str:
    option = f"`{_FLAGS.get(path, '')}`".replace("``", "")
    default = f"`{default_text(field)}`"
    # A bracket would begin a link.
    description = (field.description or "").replace("[", "\\[")
    cells = (f"`{path}`", _type(field), default, option, description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _yaml_lines(model: type[BaseModel], indent: int) -> Iterator[str]:
    pad = "  " * indent
    for name, field in model.model_fields.items():
        if _is_section(field):
            section = _section(field)
            yield f"\n{pad}# {(section.__doc__ or '').strip()}"
            yield f"{pad}{name}:"
            yield from _yaml_lines(section, indent + 1)
        else:
            yield f"{pad}# {field.description} ({_type(field).replace('`', '')})"
            yield f"{pad}{name}: {default_text(field)}"


def _type(field: FieldInfo) -> str:
    annotation, optional = _without_none(field.annotation)
    metadata = [*field.metadata, *getattr(annotation, "__metadata__", ())]
    text = _base_type(annotation, metadata) + _bounds(metadata)
    return f"{text}, or unset" if optional else text


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kept = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return kept[0], True
    return annotation, False


def _base_type(annotation: Any, metadata: list[Any]) -> str:
    validators = {getattr(item, "func", None) for item in metadata}
    if parse_bytes in validators:
        return "size"
    if parse_duration in validators:
        return "duration"
    if LOCATION in metadata:
        return "path or URL"
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin is list:
        return "list of text"
    if origin is dict:
        return "mapping of text to text"
    texts = dict.fromkeys((str, Master, EnvironmentSpec), "text")
    return {**texts, int: "whole number", bool: "true or false", float: "number"}[annotation]


def _bounds(metadata: list[Any]) -> str:
    words = []
    for item in metadata:
        match item:
            case annotated_types.Ge(ge=least):
                words.append(f"{least} or more")
            case annotated_types.Gt(gt=least):
                words.append(f"above {least}")
            case annotated_types.Le(le=most):
                words.append(f"at most {most}")
    return ", " + ", ".join(words) if words else ""


def main(arguments: list[str]) -> int:
    """Write both files, or with ``--check`` say which is out of date; return the exit code."""
    stale = [f for f, text in outputs().items() if not f.exists() or f.read_text() != text]
    if arguments == ["--check"]:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for file in stale:
        file.parent.mkdir(exist_ok=True)
        file.write_text(outputs()[file], encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT)}")
    return 0


def outputs() -> dict[Path, str]:
    """Return what belongs into each file."""
    return {PAGE: page(), DEFAULTS: defaults_file()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
