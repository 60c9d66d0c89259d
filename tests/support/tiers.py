"""A pytest plugin: which tests may run side by side, in which order, and how long each tier took.

It works with and without pytest-xdist, whose workers each collect the same tests: under
``--dist loadgroup`` those of one group run on one worker, so that what they share is started once.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

__all__ = ["Tiers"]

_TESTS = Path(__file__).parents[1]
ORDER = ("yarn", "fault", "e2e", "integration", "contract", "scenes", "unit")
"""The tiers, those with the longest tests first: short ones fill the end."""
_OWN_PROCESSES = ("fault", "e2e", "scenes")
"""Tiers of which a test starts all that it needs, but for a session that the module has."""


@dataclass
class _Cost:
    tests: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Tiers:
    """Groups and orders the tests, and prints a table of what they cost."""

    def __init__(self) -> None:
        self._costs: dict[str, _Cost] = defaultdict(_Cost)
        self._cpu_s = _cpu_s()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Group and sort; a stable sort keeps the tests of a module in their order."""
        for item in items:
            tier = _tier_of(item)
            if tier == "yarn":
                item.add_marker(pytest.mark.yarn)
            if tier in ("yarn", "fault"):
                item.add_marker(pytest.mark.ci)
            group = _group_of(item, tier)
            if config.pluginmanager.hasplugin("xdist") and group is not None:
                item.add_marker(pytest.mark.xdist_group(group))
        items.sort(key=lambda item: ORDER.index(_tier_of(item)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Check that pytest-xdist has heard of the groups: it does so by the ids of tests."""
        if not session.config.getoption("loadgroup", default=False):
            return
        for item in session.items:
            group = item.get_closest_marker("xdist_group")
            if group is not None and not item.nodeid.endswith(f"@{group.args[0]}"):
                raise pytest.UsageError(
                    f"{item.nodeid} is not in its group for pytest-xdist: this pytest-xdist does "
                    f"not work with pytest {pytest.__version__}; see constraints.txt"
                )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Note on the report, which a worker sends on, what it belongs to and cost."""
        report = yield
        before, self._cpu_s = self._cpu_s, _cpu_s()
        report.tier, report.cpu_s = _tier_of(item), self._cpu_s - before
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up setup, call and teardown; under xdist in the process that workers report to."""
        if not hasattr(report, "tier"):  # what xdist says of a worker that crashed
            return
        cost = self._costs[report.tier]
        cost.tests += report.when == "call"
        cost.wall_s += report.duration
        cost.cpu_s += report.cpu_s

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print the table. Of the processes that a test started, those that it awaited count."""
        if not self._costs:
            return
        terminalreporter.section("time by tier")
        terminalreporter.write_line(f"{'':12}{'tests':>7}{'seconds':>9}{'CPU s':>8}{'waiting':>9}")
        for tier in sorted(self._costs, key=ORDER.index):
            cost = self._costs[tier]
            waiting = max(0.0, 1.0 - cost.cpu_s / cost.wall_s) if cost.wall_s else 0.0
            terminalreporter.write_line(
                f"{tier:12}{cost.tests:7}{cost.wall_s:9.0f}{cost.cpu_s:8.0f}{waiting:9.0%}"
            )


def _tier_of(item: pytest.Item) -> str:
    # What needs the cluster shares it with the tests of it, wherever it stands.
    if item.get_closest_marker("yarn"):
        return "yarn"
    tier = item.path.relative_to(_TESTS).parts[0]
    assert tier in ORDER, f"{item.path} is in no tier's directory"
    return tier


def _group_of(item: pytest.Item, tier: str) -> str | None:
    """Return what a test shares with others, which are to run on the same worker; None: nothing."""
    if item.get_closest_marker("hdfs"):
        return "hdfs"
    if tier == "yarn":
        return "yarn" if "yarn" in item.fixturenames else None
    if tier in _OWN_PROCESSES and "in_session" not in item.fixturenames:
        return None
    return item.path.stem


def _cpu_s() -> float:
    """Return the CPU time of this process and of those it has awaited, in seconds."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)
