"""How a setting declares its option of the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["CODE", "OUTPUT", "ROLES", "SECTIONS", "STATE", "WHERE", "Option"]

WHERE: Final = "Where it runs"
ROLES: Final = "Roles"
STATE: Final = "State and data"
CODE: Final = "Code and settings"
OUTPUT: Final = "What it says"
SECTIONS: Final = (WHERE, ROLES, STATE, CODE, OUTPUT)
"""The sections of ``pl_submit --help``, in order."""


@dataclass(frozen=True)
class Option:
    """The option of ``pl_submit`` that sets a setting; part of the setting's annotation.

    The rest follows from the setting: the type of the value, the default, the description.

    Parameters
    ----------
    flag
        Such as ``--num-ps``; ``{role}`` stands for the name of the role whose resources it sets.
    section
        One of `SECTIONS`.
    metavar
        What stands for the value in the help.
    short
        A second name, of one letter.
    choices
        Returns the words it takes, where the type does not tell.
    commas
        Whether a list may be given separated by commas.
    negates
        Whether giving the option makes a setting false that is true by default.
    help
        What it does, where that is the contrary of the setting's description.
    """

    flag: str
    section: str
    metavar: str | None = None
    short: str | None = None
    choices: Callable[[], Sequence[str]] | None = None
    commas: bool = False
    negates: bool = False
    help: str | None = None
