"""Build the `JobConfig` of a run from its layers: defaults, files, command line.

Later layers win: the built-in defaults, every ``*.yaml`` of the configuration directory in name
order, each ``--conf FILE`` in the order given, the command line. Mappings are merged key by key,
everything else is replaced. The configuration directory is ``$TFOS_CONF_DIR``, else
``~/.config/tfos``; a missing default directory holds nothing.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tfos.account import home_directory
from tfos.config import JobConfig
from tfos.errors import ConfigError

__all__ = ["CONF_DIR_VARIABLE", "configuration_directory", "known_settings", "load"]

CONF_DIR_VARIABLE = "TFOS_CONF_DIR"

_LONGEST_VALUE = 80
_NAME_RULE = "use letters, digits, '.', '_' and '-', 128 at most, the first a letter or a digit"


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
        raise ConfigError(_describe(error, origins)) from error


def configuration_directory(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the directory whose ``*.yaml`` files every run reads; it need not exist.

    None where no variable names it and the user has no home directory.
    """
    named = environ.get(CONF_DIR_VARIABLE)
    if named:
        return Path(named)
    home = home_directory()
    return None if home is None else home / ".config" / "tfos"


def known_settings(model: type[BaseModel] = JobConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting, in the model's order."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from known_settings(section, f"{prefix}{name}.")


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
        raise ConfigError(f"{file}: not YAML: {_one_line(str(error))}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected settings (name: value), found {_shown(document)}")
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
    unknown = list(_unknown(JobConfig, layer))
    if unknown:
        raise ConfigError(f"{source}: " + "; ".join(map(_describe_unknown, unknown)))
    settings = _normalized(JobConfig, layer)
    _merge(merged, settings)
    origins.update((path, source) for path in _leaves(settings))


def _section(annotation: Any) -> type[BaseModel] | None:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def _unknown(model: type[BaseModel], layer: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in layer.items():
        path = f"{prefix}{key}"
        field = model.model_fields.get(str(key))
        if field is None:
            # The innermost name says most of what was meant.
            yield next(_leaves({path: value}), path)
        elif (section := _section(field.annotation)) and isinstance(value, Mapping):
            yield from _unknown(section, value, f"{path}.")


def _describe_unknown(path: str) -> str:
    nearest = _nearest(path)
    hint = f"did you mean {nearest}?" if nearest else "docs/configuration.md lists the settings"
    return f"{path} is not a setting; {hint}"


def _nearest(path: str) -> str | None:
    by_last_name: dict[str, list[str]] = {}
    for known in known_settings():
        by_last_name.setdefault(known.rpartition(".")[2], []).append(known)
    last = path.rpartition(".")[2]
    if len(by_last_name.get(last, ())) == 1:
        return by_last_name[last][0]
    for close in difflib.get_close_matches(path, list(known_settings()), n=1):
        return close
    for close in difflib.get_close_matches(last, by_last_name, n=1):
        return by_last_name[close][0]
    return None


def _normalized(model: type[BaseModel], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Drop sections left empty (``roles:``) and give Spark properties as text."""
    result: dict[str, Any] = {}
    for key, value in layer.items():
        section = _section(model.model_fields[key].annotation)
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


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _describe(error: ValidationError, origins: Mapping[str, str]) -> str:
    first, *others = error.errors(include_url=False)
    more = f" (and {len(others)} more wrong)" if others else ""
    path = ".".join(str(part) for part in first["loc"])
    message = _rule(first)
    if not path:
        return message + more
    source = next((origins[p] for p in _prefixes(path) if p in origins), "configuration")
    return f"{source}: {path} is {_shown(first['input'])}: {message}{more}"


def _prefixes(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _rule(details: ErrorDetails) -> str:
    if details["type"] == "string_pattern_mismatch":
        return _NAME_RULE
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return _one_line(message)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
