"""Say that what a test needs is missing: it skips where a user runs it, and fails in CI."""

from __future__ import annotations

import os

import pytest

__all__ = ["tell_missing"]


def tell_missing(message: str) -> None:
    """Skip the test, or fail it under ``TFOS_SERVICES_REQUIRED=1``."""
    if os.environ.get("TFOS_SERVICES_REQUIRED"):
        pytest.fail(message)
    pytest.skip(f"{message} (TFOS_SERVICES_REQUIRED=1 makes this a failure)")
