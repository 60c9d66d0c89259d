"""Say where a run's registry is and what opens it, and open it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfos import wire
from tfos.files.private import write_private
from tfos.registry.contract import Registry
from tfos.registry.identity import RunIdentity
from tfos.topology import Endpoint

__all__ = ["RegistryAddress"]


@dataclass(frozen=True)
class RegistryAddress:
    """Where the run's registry is, and what opens it. Travels by Spark's own channel.

    Parameters
    ----------
    hosts
        ``host:port,host:port``.
    root
        The run's own node.
    secret
        Opens the run's nodes.
    session_timeout_s, connect_timeout_s
        As of `ZooKeeperRegistry`.
    identity
        Opens the run's own server; None for an external ensemble.
    """

    hosts: str
    root: str
    secret: str = field(repr=False)
    session_timeout_s: float
    connect_timeout_s: float
    identity: RunIdentity | None = None

    def connect(self, *, create: bool = False) -> Registry:
        """Open a session; raises RendezvousConnectionError within `connect_timeout_s`.

        The driver creates the run's tree. A role host does not: one that comes late must find the
        run closed, not bring it back.
        """
        from tfos.registry.zookeeper import ZooKeeperRegistry

        return ZooKeeperRegistry(
            self.hosts,
            self.root,
            self.secret,
            session_timeout_s=self.session_timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            identity=self.identity,
            create=create,
        )

    @property
    def first(self) -> Endpoint:
        """One server of the ensemble, to find the interface that leads there."""
        return Endpoint.parse(self.hosts.split(",")[0])

    def to_text(self) -> str:
        """Return this as text, the secret too: for a place that only its owner can read."""
        return wire.to_text(self)

    @classmethod
    def from_text(cls, text: str) -> RegistryAddress:
        """Read back what `to_text` returned; raises ValueError on anything else."""
        return wire.from_text(cls, text)

    def note(self, path: str) -> None:
        """Write this to a new file that only its owner can read."""
        write_private(path, self.to_text())

    @classmethod
    def noted(cls, path: str) -> RegistryAddress:
        """Read back what `note` wrote; raises OSError or ValueError."""
        with open(path, encoding="utf-8") as file:
            return cls.from_text(file.read())
