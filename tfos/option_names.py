"""Options of the command line by name: the setting each sets, and those `tfos.run` takes. Pure."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tfos.config import JobConfig, parse_bytes, parse_duration
from tfos.options import Option

__all__ = [
    "SETTING_OF_OPTION",
    "SETTING_OF_RUN_OPTION",
    "SETTING_OPTIONS",
    "RunOptions",
    "SettingOption",
    "default_text",
    "describe_unknown_option",
]


@dataclass(frozen=True)
class SettingOption:
    """An option of the command line, and the setting that it sets.

    Parameters
    ----------
    name
        In Python: ``num_ps`` for ``--num-ps``.
    flag
        On the command line.
    setting
        Path of the setting, such as ``roles.num_ps``.
    field
        Its definition.
    option
        What its definition says of the option.
    """

    name: str
    flag: str
    setting: str
    field: FieldInfo
    option: Option


def _options_of(kind: type[BaseModel], prefix: str = "", role: str = "") -> Iterator[SettingOption]:
    for name, field in kind.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _options_of(section, f"{prefix}{name}.", name)
        for option in field.metadata:
            if isinstance(option, Option):
                flag = option.flag.format(role=role)
                python = flag.removeprefix("--no-" if option.negates else "--").replace("-", "_")
                yield SettingOption(python, flag, prefix + name, field, option)


SETTING_OPTIONS = tuple(_options_of(JobConfig))
"""Every option of ``pl_submit`` that sets a setting."""
SETTING_OF_OPTION: Mapping[str, str] = {each.name: each.setting for each in SETTING_OPTIONS}
"""Option, by its name in Python -> the setting it sets."""


def default_text(field: FieldInfo) -> str:
    """Return the default of a setting as a file of settings would have it, such as ``15m``."""
    value = field.get_default(call_default_factory=True)
    metadata = [*field.metadata, *_annotations_of(field.annotation)]
    validators = {getattr(item, "func", None) for item in metadata}
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if parse_bytes in validators:
        return _counted(value, {"g": 1 << 30, "m": 1 << 20, "k": 1 << 10, "": 1})
    if parse_duration in validators:
        return _counted(value, {"h": 3600, "m": 60, "s": 1})
    return str(value)


def _annotations_of(kind: Any) -> tuple[Any, ...]:
    return tuple(
        item for each in (kind, *get_args(kind)) for item in getattr(each, "__metadata__", ())
    )


def _counted(value: float, units: Mapping[str, int]) -> str:
    """Return a number in the first unit of which there is one or more, and no rest."""
    fitting = ((unit, size) for unit, size in units.items() if value >= size and value % size == 0)
    unit, size = next(fitting, [*units.items()][-1])
    return f"{value / size:g}{unit}"


class RunOptions(TypedDict, total=False):
    """Options of ``pl_submit`` that `tfos.run` takes, each by its name in Python.

    Sizes and times may be text, as on the command line: ``"2g"``, ``"15m"``. What starts Spark is
    not among them: `tfos.run` is given a running session.
    """

    name: str | None
    arch: str
    keras: int
    num_ps: int
    num_workers: int
    ps_memory: str | int | None
    worker_memory: str | int | None
    chief_memory: str | int | None
    ps_cores: int | None
    worker_cores: int | None
    chief_cores: int | None
    ps_gpus: int
    worker_gpus: int
    chief_gpus: int
    zookeeper: str | None
    checkpoint_dir: str | os.PathLike[str] | None
    model_dir: str | os.PathLike[str] | None
    fresh: bool
    warm_start: str | os.PathLike[str] | None
    max_restarts: int
    stall_timeout: str | float
    inject: Sequence[str]
    timeout: str | float | None
    params: Mapping[str, object]
    args: Sequence[str]
    result_json: str | os.PathLike[str] | None
    log_level: str


_RENAMED = {"param": "params"}
SETTING_OF_RUN_OPTION: Mapping[str, str] = {
    **{
        _RENAMED.get(option, option): setting
        for option, setting in SETTING_OF_OPTION.items()
        if not setting.startswith("spark.")
    },
    "args": "args",
}
"""Keyword argument of `tfos.run` -> the setting it sets."""


def describe_unknown_option(name: str) -> str:
    """Return one line about a name that is no option of `tfos.run`."""
    if SETTING_OF_OPTION.get(name, "").startswith("spark."):
        return f"{name} is for starting Spark: set it where the SparkSession is made"
    close = difflib.get_close_matches(name, SETTING_OF_RUN_OPTION, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(SETTING_OF_RUN_OPTION)}"
    return f"{name} is not an option; {hint}"
