"""What the documents quote from the code is in the code: messages, and time limits."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tfos.fault.checkpoints.store import SAVE_WAIT_S
from tfos.launcher.driver.controller import PEER_WITHIN_S
from tfos.launcher.driver.lost_hosts import RETURN_WITHIN_S
from tfos.launcher.driver.task_slots import STANDSTILL_S

ROOT = Path(__file__).parents[2]
# What stands for a value: an ellipsis, N or M, a role, a signal, a number, something quoted.
VALUE = re.compile(r"\.\.\.|\b[NM]\b|\b(?:chief|worker|ps)-\d+\b|\bSIG[A-Z]+|\b\d+\b|'[^']*'")


def text_of(document: str) -> str:
    return " ".join((ROOT / "docs" / document).read_text(encoding="utf-8").split())


HEADLINES = re.findall(r"(?<= )\*\*(`.+?)\*\*", text_of("troubleshooting.md"))
MESSAGES = [message for headline in HEADLINES for message in re.findall(r"`(.+?)`", headline)]


@pytest.fixture(scope="module")
def known() -> str:
    """Return every string of the package, one a line; an f-string without its values."""
    found = []
    for file in sorted((ROOT / "tfos").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.JoinedStr(values=parts):
                    words = [part.value for part in parts if isinstance(part, ast.Constant)]
                    found.append("\0".join(words))
                case ast.Constant(value=str() as text):
                    found.append(text)
    return "\n".join(found)


def test_the_messages_are_found():
    assert len(MESSAGES) > 20


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_troubleshooting_page_is_in_the_code(message, known):
    fragments = [fragment.strip(" ',()") for fragment in VALUE.split(message)]
    assert [f for f in fragments if f and f not in known] == []


@pytest.mark.parametrize(
    ("document", "phrase"),
    [
        ("recovery.md", f"for up to {PEER_WITHIN_S:g} seconds the driver looks"),
        ("recovery.md", f"has not come back {RETURN_WITHIN_S:g} s later is run again"),
        ("troubleshooting.md", f"no more came for {STANDSTILL_S:g} seconds"),
        ("checkpoints.md", f"waits for it, up to {SAVE_WAIT_S / 60:g} minutes"),
    ],
)
def test_a_time_limit_is_that_of_the_code(document, phrase):
    assert phrase in text_of(document)
