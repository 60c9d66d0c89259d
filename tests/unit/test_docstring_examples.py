"""The examples in docstrings do what they say, where they need no run to do it in."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What only a run has.
OF_A_RUN = re.compile(r"\b(ctx|spark|run_local|tfos\.run|CountJob|result|error)\b")

MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "tfos").rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


def examples_of(module: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    for test in found:
        test.examples = [each for each in test.examples if not OF_A_RUN.search(each.source)]
    return [test for test in found if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_they_do_what_they_say(module):
    runner = doctest.DocTestRunner(verbose=False)
    for test in examples_of(module):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_there_are_some_that_run():
    assert sum(len(test.examples) for module in MODULES for test in examples_of(module)) >= 9
