"""The account this process runs under, as far as there is one.

Containers run programs under numeric user ids without an entry in passwd and without ``HOME``.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

__all__ = ["has_entry", "home_directory", "user_name"]

_NAME_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def has_entry() -> bool:
    """Whether the user id has an entry in passwd, by which other programs find its name."""
    return _entry() is not None


def home_directory(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return ``HOME``, else the home directory that passwd names; None where neither does."""
    home = environ.get("HOME")
    if home:
        return Path(home)
    entry = _entry()
    return None if entry is None or not entry.pw_dir else Path(entry.pw_dir)


def user_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return the user's name, as `getpass.getuser` does; ``uid-12345`` where there is none."""
    for variable in _NAME_VARIABLES:
        if name := environ.get(variable):
            return name
    entry = _entry()
    return f"uid-{os.getuid()}" if entry is None else entry.pw_name


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None
