"""Lay out one run's tree of nodes: make it, claim and read nodes in it, erase it.

Under the run's root: ``members/<role>-<i>`` and ``progress/<role>-<i>`` (ephemeral);
``generations/<n>``, under a node whose data begins with the latest number and whose version equals
it, so that publishing is a compare-and-set; ``outcomes/<n>/<role>-<i>``; ``failures/<life>``;
``respawns/<role>-<i>``, holding the life last ordered; ``driver`` (ephemeral); and ``stop``, empty
until the run is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from tfos.errors import RendezvousClosedError, RendezvousError
from tfos.registry.documents import decode
from tfos.registry.node_session import (
    Create,
    Delete,
    NodeError,
    NodeMissingError,
    NodePresentError,
    NodeSession,
)

__all__ = ["RunTree", "create_under_parents", "delete_empty_parents"]

T = TypeVar("T")
_TRIES: Final = 10
_BRANCHES: Final = ("members", "outcomes", "progress", "failures", "respawns", "generations")


class RunTree:
    """A session's hands on one run's tree. Thread-safe; blocks as the session's calls do.

    Parameters
    ----------
    session
        The session.
    root
        The run's own node.
    """

    def __init__(self, session: NodeSession, root: str) -> None:
        self._session = session
        self._root = root

    def create(self) -> None:
        """Create the tree; one already there is left as it is."""
        root = self._root
        # In one transaction, so that the tree is there whole or not at all.
        names = ("", *(f"/{name}" for name in _BRANCHES if name != "generations"), "/stop")
        tree = [*(Create(root + name) for name in names), Create(f"{root}/generations", b"0")]
        with suppress(NodePresentError):
            create_under_parents(self._session, root, lambda: self._session.commit(tree))

    def ensure(self, path: str) -> None:
        """Create an empty node where it is missing; raises RendezvousClosedError without a tree."""
        with self.present(), suppress(NodePresentError):
            self._session.create(path)

    def claim(self, path: str, data: bytes, refuse: Callable[[bytes], None]) -> None:
        """Make a node this session's own, holding `data`.

        Its own already: rewritten where it differs. Another session's: taken over, unless `refuse`
        raises on its data. None's: created.
        """
        for _ in range(_TRIES):
            with self.present(), suppress(NodePresentError):
                self._session.create(path, data, ephemeral=True)
                return
            # What was there may change hands or vanish before it is replaced: look again then.
            with suppress(NodeError):
                node = self._session.read(path)
                if not node.mine:
                    refuse(node.data)
                    self._session.commit([Delete(path, node.version), Create(path, data, True)])
                elif node.data != data:
                    self._session.write(path, data)
                return
        raise RendezvousError(f"{path} keeps changing hands: several hosts play the same role")

    def documents(self, branch: str, kind: type[T]) -> dict[str, T]:
        """Return the documents below a branch by name; none once the tree is gone."""
        path = f"{self._root}/{branch}"
        try:
            names = self._session.children(path)
        except NodeMissingError:
            return {}
        nodes = self._session.read_each(f"{path}/{name}" for name in names)
        return {
            node_path.rpartition("/")[2]: decode(kind, node.data, node_path)
            for node_path, node in nodes.items()
        }

    def erase(self) -> None:
        """Remove the tree, and the two nodes above it where they are then empty. Idempotent.

        Raises
        ------
        RendezvousError
            When something keeps writing to it meanwhile.
        """
        for _ in range(_TRIES):
            with suppress(NodeError):
                self._erase_once()
                return
        raise RendezvousError(f"{self._root} could not be erased: something keeps writing to it")

    def _erase_once(self) -> None:
        root, session = self._root, self._session
        try:
            attempts = [f"{root}/outcomes/{n}" for n in session.children(f"{root}/outcomes")]
        except NodeMissingError:
            return
        branches = [*attempts, *(f"{root}/{name}" for name in _BRANCHES)]
        for branch in branches:
            if branch != f"{root}/outcomes":
                session.delete_each(f"{branch}/{name}" for name in session.children(branch))
        session.delete_each([f"{root}/driver"])
        session.commit([Delete(path) for path in (*branches, f"{root}/stop", root)])
        delete_empty_parents(session, root)

    @contextmanager
    def present(self) -> Iterator[None]:
        """Turn a missing node into RendezvousClosedError: the run's tree is gone."""
        try:
            yield
        except NodeMissingError as error:
            raise RendezvousClosedError(
                f"the run has ended: {self._root} is no longer in the registry", reason="erased"
            ) from error


def create_under_parents(session: NodeSession, path: str, create: Callable[[], None]) -> None:
    """Create what is missing above `path`, then call `create`, which makes the node itself."""
    for _ in range(_TRIES):
        # Another run of the job that ends just now removes parents it finds empty: at any level,
        # and between any two of these calls.
        with suppress(NodeMissingError):
            session.create_parents(path)
            return create()
    raise RendezvousError(f"{path} could not be created: its parents keep vanishing")


def delete_empty_parents(session: NodeSession, path: str) -> None:
    """Delete the two nodes above `path`, the job's and that of all jobs, where they are empty."""
    job = path.rpartition("/")[0]
    for parent in (job, job.rpartition("/")[0]):
        # Not empty where other runs or jobs are, and then it stays.
        with suppress(NodeError):
            if parent:
                session.commit([Delete(parent)])
