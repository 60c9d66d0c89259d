"""Read ``--env``: which Python environment the executors are to have. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tfos.errors import ConfigError

__all__ = ["ARCHIVE_SUFFIXES", "EnvironmentKind", "EnvironmentSpec", "parse_environment"]

EnvironmentKind = Literal["none", "venv", "conda", "archive", "docker"]

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".zip", ".tar")
"""The kinds of archive that YARN and Spark unpack by their names."""

_FORMS: dict[EnvironmentKind, str] = {
    "venv": "venv:DIRECTORY",
    "conda": "conda:NAME or conda:DIRECTORY",
    "archive": "archive:URL",
    "docker": "docker:IMAGE",
    "none": "none",
}
_CHOICES = "none, venv:DIRECTORY, conda:NAME, conda:DIRECTORY, archive:URL or docker:IMAGE"
_INTERPRETER = re.compile(r"(?P<prefix>.+)/bin/python[0-9.]*")


@dataclass(frozen=True)
class EnvironmentSpec:
    """One value of ``--env``, read.

    Parameters
    ----------
    kind
        What it names.
    value
        The directory, name, URL or image; empty for none.
    """

    kind: EnvironmentKind
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind

    @property
    def is_packed(self) -> bool:
        """Whether an archive has to be made of it first."""
        return self.kind in ("venv", "conda")

    @property
    def is_archive(self) -> bool:
        """Whether containers get it as an archive that they unpack."""
        return self.is_packed or self.kind == "archive"


def parse_environment(text: str) -> EnvironmentSpec:
    """Read the value of ``--env``.

    A leading ``~`` stays: who looks at the directory resolves it.

    Raises
    ------
    ConfigError
        If it is malformed; one line that says how it is written, of which `text` is the subject.
    """
    word, colon, value = text.strip().partition(":")
    kind = next((each for each in _FORMS if each == word.lower()), None)
    if kind is None:
        hint = ""
        if word.startswith(("/", ".", "~")):
            hint = f"; for a virtual environment: venv:{text.strip()}"
        raise ConfigError(f"it should be {_CHOICES}{hint}")
    value = value.strip()
    if kind == "none":
        if colon:
            raise ConfigError("none takes no value: use none")
        return EnvironmentSpec("none")
    if not value:
        raise ConfigError(f"it names nothing: use {_FORMS[kind]}")
    problem = _problem(kind, value)
    if problem is not None:
        raise ConfigError(problem)
    return EnvironmentSpec(kind, value)


def _problem(kind: EnvironmentKind, value: str) -> str | None:
    if kind == "archive":
        return _archive_problem(value)
    if kind == "docker":
        if "://" in value:
            return "an image is named without a scheme, such as docker:registry:5000/name:tag"
        if re.search(r"[\s,]", value):
            return "an image's name has neither spaces nor commas"
        return None
    interpreter = _INTERPRETER.fullmatch(value)
    if interpreter is not None:
        return f"name the environment, not its interpreter: {kind}:{interpreter['prefix']}"
    if kind == "venv" and "://" in value:
        return f"a virtual environment is a directory of this machine; for a URL: archive:{value}"
    return None


def _archive_problem(value: str) -> str | None:
    if "#" in value:
        return "leave out what begins with '#': tfos itself names the directory to unpack into"
    if re.search(r"[\s,]", value):
        return "Spark cannot take spaces and commas in an archive's URL: rename it"
    if not value.lower().endswith(ARCHIVE_SUFFIXES):
        return (
            f"Spark tells an archive by its name, which has to end in {', '.join(ARCHIVE_SUFFIXES)}"
        )
    return None
