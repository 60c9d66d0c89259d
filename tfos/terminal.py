"""Text of other origin made safe for a terminal: role output, names, records, messages. Pure.

A terminal obeys control sequences in whatever it shows: they change its title, read and write the
clipboard, move the cursor to forge other lines. Records and log files keep the text as it came; it
is escaped here, where it is shown.
"""

from __future__ import annotations

import logging
import re
from typing import Final

__all__ = ["TerminalFormatter", "one_line", "printable", "printable_lines"]

# Colours and weights, which many libraries write, carry no meaning and change no other line.
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")
# Control characters but the tab, line and paragraph separators, halves of surrogate pairs, what
# turns the direction of writing, and characters that nobody can see.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Return one line of `text` in which nothing is left for a terminal to obey.

    Colours are removed; other control characters, newlines among them, and those that turn the
    direction of writing become escapes such as ``\x1b`` and ``\u202e``. Tabs stay. Idempotent.
    """
    return _UNSAFE.sub(_escaped, _COLOURS.sub("", text))


def printable_lines(text: str) -> str:
    """Return `text` with each of its lines made `printable`; newlines stay."""
    return "\n".join(map(printable, text.replace("\r\n", "\n").split("\n")))


def one_line(text: str) -> str:
    """Return `text` as one `printable` line: each run of white space becomes a blank."""
    return printable(" ".join(text.split()))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class TerminalFormatter(logging.Formatter):
    """A formatter whose lines are `printable`; further lines of a message are indented.

    A line at the margin is therefore always the beginning of a message.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable_lines(super().format(record)).replace("\n", "\n  ")
