"""Words that native readers stumble over stay out of code and documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("tfos", "docs", "examples", "benchmarks", "conf", "README.md", "CHANGELOG.md")
INSTEAD = {
    "amid": "during, in the middle of",
    "heed": "follow, obey, ignore (not)",
    "heeded": "followed, ignored (not)",
    "heeds": "follows, obeys, ignores (not)",
    "whoever": "anyone who, the process that",
    "comes to be": "is created",
    "come to be": "are created",
    "for want of": "for lack of, because there is no",
    "told of": "reported, notified of, called with",
}
STUMBLED_OVER = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)


def texts() -> list[Path]:
    found = [ROOT / place for place in PLACES]
    files = [file for each in found for file in ([each] if each.is_file() else each.rglob("*.*"))]
    return [file for file in files if file.suffix in (".py", ".md", ".yaml")]


@pytest.mark.parametrize(
    ("text", "word"), [("Whoever asks.", "Whoever"), ("one\nwas told of it", "told of")]
)
def test_the_rule_itself(text, word):
    assert STUMBLED_OVER.findall(text) == [word]


def test_words_that_native_readers_stumble_over_are_not_used():
    found = [
        f"{file.relative_to(ROOT)}:{number}: {word!r} (better: {INSTEAD[word.lower()]})"
        for file in texts()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for word in STUMBLED_OVER.findall(line)
    ]
    assert found == []
