"""The architecture `ensemble`: every worker trains a model of its own on its share of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tfos.config import RolesConfig
from tfos.frameworks.contract import TRAIN, Framework, PlainRuntime, role_spec
from tfos.topology import Role, RoleSpec
from tfos.training_parts import HostLink, ProcessFacts

__all__ = ["EnsembleFramework"]


class EnsembleFramework(Framework):
    """Workers only. They know nothing of each other: one that dies is replaced alone."""

    name = "ensemble"
    summary = "--num-workers workers each train a model of their own, without a framework."
    checkpoint_name = ""

    def roles(self, config: RolesConfig) -> tuple[RoleSpec, ...]:
        """Return the workers."""
        workers = role_spec(
            Role.WORKER, config.num_workers, config.worker, trains=True, respawns=True
        )
        return (workers,)

    def feeds(self, role: Role, datasets: Sequence[str]) -> tuple[str, ...]:
        """Return ``train``, of which each worker gets its share."""
        return tuple(name for name in datasets if name == TRAIN)

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[PlainRuntime]:
        """Need nothing."""
        yield PlainRuntime()
