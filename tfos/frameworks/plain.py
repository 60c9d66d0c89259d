"""The `plain` architecture: one process trains with whatever Python has, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tfos.arguments import Arguments
from tfos.config import RolesConfig
from tfos.frameworks.contract import Framework, PlainRuntime, role_spec
from tfos.topology import Role, RoleSpec
from tfos.training_parts import HostLink, ProcessFacts

__all__ = ["PlainFramework"]


class PlainFramework(Framework):
    """One chief."""

    name = "plain"
    summary = (
        "One process runs train, with no framework: scikit-learn, XGBoost or code of your own, "
        "over ctx.batches()."
    )
    checkpoint_name = ""

    def roles(self, config: RolesConfig) -> tuple[RoleSpec, ...]:
        """Return the one role."""
        return (role_spec(Role.CHIEF, 1, config.chief, trains=True),)

    def feeds(self, role: Role, datasets: Sequence[str]) -> tuple[str, ...]:
        """Return all of them: there is nobody else to feed."""
        return tuple(datasets)

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[_Runtime]:
        """Need nothing."""
        yield _Runtime()


class _Runtime(PlainRuntime):
    def exporter(
        self, model: Any, signatures: Any, options: Mapping[str, Any]
    ) -> Callable[[str], None]:
        """Return the user's own function."""
        if not callable(model) or signatures is not None or options:
            what = "under --arch plain a function of a directory that writes the model there"
            raise Arguments("ctx.export").wrong_type("model", model, what)
        write: Callable[[str], None] = model
        return write
