"""Directories and files that one user alone can use, in places that several share."""

from __future__ import annotations

import os
import pwd
import secrets
from pathlib import Path

from tfos.errors import ConfigError, TfosError

__all__ = ["make_private", "private_name", "refuse_foreign", "write_private"]


def private_name(told: str) -> str:
    """Return a name for a directory in a shared place: ``tfos-<told>-`` and 64 random bits.

    Nobody can make it first, for nobody knows it before it is there.
    """
    return f"tfos-{told}-{secrets.token_hex(8)}"


def make_private(path: Path, *, instead: str) -> None:
    """Make a directory that only this user can use, and what is missing above it.

    Parameters
    ----------
    path
        Must not exist, not even as a link.
    instead
        How another place is named: the end of the error's message.

    Raises
    ------
    ConfigError
        If the directory above it belongs to another user.
    OSError
        If it cannot be made, or exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_foreign(path.parent, instead=instead)
    path.mkdir(mode=0o700)


def write_private(path: str | os.PathLike[str], text: str) -> str:
    """Write text to a new file that only this user can read, and return its path.

    Raises OSError, also if it exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return os.fspath(path)


def refuse_foreign(directory: Path, *, instead: str, error: type[TfosError] = ConfigError) -> None:
    """Raise `error` if a directory, or the link that names it, is another user's, and not root's.

    Its owner could replace whatever is made in it. One that everyone may write is root's where it
    has the sticky bit, as ``/tmp`` and ``/dev/shm`` are. One that is not there is nobody's.
    """
    if not directory.exists():
        return
    for owner in {directory.lstat().st_uid, directory.stat().st_uid}:
        if owner not in (0, os.geteuid()):
            raise error(
                f"{directory} belongs to another user, {_user_name(owner)}, who could replace what "
                f"tfos keeps there: {instead}"
            )


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
