"""What several kinds of test share lies beside this file, importable by its own name."""

from __future__ import annotations

import os
import shutil

import pytest
from services import tell_missing


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs_java = item.get_closest_marker("zookeeper") or item.get_closest_marker("spark")
    if needs_java and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        tell_missing("no Java is found: install Java 17, or set JAVA_HOME")
