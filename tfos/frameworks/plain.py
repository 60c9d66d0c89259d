"""The `plain` architecture: one process trains with whatever Python has, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tfos.frameworks.contract import PlainRuntime, SingleProcess
from tfos.training_parts import HostLink, ProcessFacts

__all__ = ["PlainFramework"]


class PlainFramework(SingleProcess):
    """One chief."""

    name = "plain"
    summary = (
        "One process runs train, with no framework: scikit-learn, XGBoost or code of your own, "
        "over ctx.batches()."
    )
    checkpoint_name = ""

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[PlainRuntime]:
        """Need nothing."""
        yield PlainRuntime()
