"""Build the `JobConfig` of a run from its layers: defaults, files, command line.

Later layers win: the built-in defaults, every ``*.yaml`` of the configuration directory in name
order, each ``--conf FILE`` in the order given, the command line. Mappings are merged key by key,
everything else is replaced. The configuration directory is ``$TFOS_CONF_DIR``, else
``~/.config/tfos``; a missing default directory holds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tfos.account import home_directory
from tfos.config import JobConfig
from tfos.errors import ConfigError
from tfos.option_names import SETTING_OF_RUN_OPTION, describe_unknown_option
from tfos.setting_errors import (
    describe_invalid,
    describe_unknown,
    leaves,
    one_line,
    section_of,
    settings_of,
    shown,
    unknown_settings,
)

__all__ = ["CONF_DIR_VARIABLE", "configuration_directory", "known_settings", "load", "with_options"]

CONF_DIR_VARIABLE = "TFOS_CONF_DIR"


def load(
    *,
    conf_files: Sequence[Path] = (),
    overrides: Mapping[str, Any] | None = None,
    option_names: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> JobConfig:
    """Merge every layer into one validated configuration. Reads files; does not block otherwise.

    Parameters
    ----------
    conf_files
        YAML files, the last one strongest.
    overrides
        Dotted setting name (``roles.num_ps``) to value: the command line. Strongest of all.
    option_names
        Dotted setting name to the option that set it, for messages.
    environ
        Environment to find the configuration directory by.

    Raises
    ------
    ConfigError
        One line naming the source, the setting, its value and what is allowed; for bad YAML the
        file, line and column.
    """
    names = option_names or {}
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in (*_directory_files(environ), *conf_files):
        _add_layer(merged, origins, _read_yaml(file), str(file))
    for path, value in (overrides or {}).items():
        _add_layer(merged, origins, _nested({path: value}), names.get(path, "command line"))
    try:
        return JobConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(describe_invalid(error, origins, "configuration")) from error


def configuration_directory(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the directory whose ``*.yaml`` files every run reads; it need not exist.

    None where no variable names it and the user has no home directory.
    """
    named = environ.get(CONF_DIR_VARIABLE)
    if named:
        return Path(named)
    home = home_directory()
    return None if home is None else home / ".config" / "tfos"


def known_settings() -> Iterator[str]:
    """Yield the dotted name of every setting, in the model's order."""
    return settings_of(JobConfig)


def with_options(config: JobConfig | None, options: Mapping[str, Any], *, caller: str) -> JobConfig:
    """Return a configuration with options of the command line set, by their names in Python.

    Parameters
    ----------
    config
        What they are added to; None for the defaults.
    options
        Values by name, as `tfos.option_names.RunOptions` has them.
    caller
        Whose arguments they are, for messages.

    Raises
    ------
    ConfigError
        One line naming the option, and the nearest one or what is allowed.
    """
    if not isinstance(config, JobConfig | None):
        raise ConfigError(
            f"{caller}: config must be a tfos.JobConfig, not {shown(config)}; options are given by "
            f'name, such as {caller}(..., arch="ps")'
        )
    merged: dict[str, Any] = {} if config is None else config.model_dump(exclude_unset=True)
    origins: dict[str, str] = {}
    for name, value in options.items():
        setting = SETTING_OF_RUN_OPTION.get(name)
        if setting is None:
            raise ConfigError(f"{caller}: {describe_unknown_option(name)}")
        _add_layer(merged, origins, _nested({setting: value}), f"{caller}, {name}")
    try:
        return JobConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(describe_invalid(error, origins, caller)) from None


def _directory_files(environ: Mapping[str, str]) -> list[Path]:
    directory = configuration_directory(environ)
    if environ.get(CONF_DIR_VARIABLE) and directory is not None and not directory.is_dir():
        raise ConfigError(f"{CONF_DIR_VARIABLE} is {str(directory)!r}: there is no such directory")
    return [] if directory is None else sorted(directory.glob("*.yaml"))


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe types; a key written twice in one mapping is an error, not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key_node, yaml.ScalarNode) and key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} is set twice", key_node.start_mark
                )
            seen.add(key if isinstance(key_node, yaml.ScalarNode) else id(key_node))
        return super().construct_mapping(node, deep=deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        # Every constructor of the loader is SafeLoader's own.
        document = yaml.load(file.read_bytes(), _UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigError(f"{file}{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {one_line(str(error))}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected settings (name: value), found {shown(document)}")
    return _nested({str(key): value for key, value in document.items()})


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Expand ``{"roles.num_ps": 1}`` to ``{"roles": {"num_ps": 1}}``; only outermost keys."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        branch: Any = value
        for name in (last, *reversed(parents)):
            branch = {name: branch}
        _merge(tree, branch)
    return tree


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _add_layer(
    merged: dict[str, Any], origins: dict[str, str], layer: Mapping[str, Any], source: str
) -> None:
    unknown = [describe_unknown(JobConfig, path) for path in unknown_settings(JobConfig, layer)]
    if unknown:
        raise ConfigError(f"{source}: " + "; ".join(unknown))
    settings = _normalized(JobConfig, layer)
    _merge(merged, settings)
    origins.update((path, source) for path in leaves(settings))


def _normalized(model: type[BaseModel], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Drop sections left empty (``roles:``) and give Spark properties as text."""
    result: dict[str, Any] = {}
    for key, value in layer.items():
        section = section_of(model.model_fields[key].annotation)
        if section is None:
            result[key] = value
        elif isinstance(value, Mapping):
            result[key] = _normalized(section, value)
        elif value is not None:
            result[key] = value
    conf = result.get("conf")
    if isinstance(conf, Mapping):
        # YAML reads `spark.speculation: false` as a boolean; Spark wants the word.
        result["conf"] = {str(name): _as_property(value) for name, value in conf.items()}
    return result


def _as_property(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value
