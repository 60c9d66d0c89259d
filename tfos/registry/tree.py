"""Keep the registry contract in one run's tree of nodes.

Under the run's root: ``members/<role>-<i>`` and ``progress/<role>-<i>`` (ephemeral);
``generations/<n>``, under a node whose data begins with the latest number and whose version equals
it, so that publishing is a compare-and-set; ``outcomes/<n>/<role>-<i>``; and ``stop``, empty until
the run is stopped.
"""

from __future__ import annotations

import functools
import queue
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tfos.errors import RendezvousClosedError, RendezvousError, RendezvousTimeoutError
from tfos.registry.contract import (
    Connection,
    Document,
    Generation,
    Member,
    Registry,
    StopNotice,
    Subscription,
)
from tfos.registry.documents import decode, encode
from tfos.registry.node_session import (
    Create,
    Delete,
    NodeError,
    NodeMissingError,
    NodeMovedError,
    NodePresentError,
    NodeSession,
    Write,
)
from tfos.topology import TaskKey

__all__ = ["TreeRegistry"]

_TRIES: Final = 10
_key = functools.lru_cache(maxsize=65_536)(TaskKey.parse)
_NO_VERSION: Final = 2**31 - 1


class TreeRegistry(Registry):
    """A session's view of one run's tree. See `Registry` for what each call means.

    Parameters
    ----------
    session
        The session; closed by `close`.
    root
        The run's own node.
    create
        Create the run's tree where it is missing.
    """

    def __init__(self, session: NodeSession, root: str, *, create: bool) -> None:
        self._session = session
        self._root = root
        self._reported: set[TaskKey] = set()
        try:
            session.read(f"{root}/stop")
        except NodeMissingError:
            if create:
                self._create_tree()

    def _create_tree(self) -> None:
        root = self._root
        # In one transaction, so that the tree is there whole or not at all.
        names = ("", "/members", "/outcomes", "/progress", "/stop")
        tree = [*(Create(root + name) for name in names), Create(f"{root}/generations", b"0")]
        for _ in range(_TRIES):
            self._session.create_parents(root)
            # Another run of the job that ends just now removes parents it finds empty.
            with suppress(NodeMissingError):
                with suppress(NodePresentError):
                    self._session.commit(tree)
                return
        raise RendezvousError(f"{root} could not be created: its parents keep vanishing")

    # -- role hosts ---------------------------------------------------------------------------

    def register(self, member: Member) -> None:
        """See `Registry.register`."""
        data = encode(member.to_json(), f"the membership of {member.key}")
        notice = self.stop_notice()
        if notice is not None:
            raise _stopped(notice, f"{member.key} cannot register")

        def refuse_newer(held: bytes) -> None:
            holder = Member.from_json(decode(held, f"the membership of {member.key}"))
            if holder.attempt >= member.attempt:
                raise RendezvousError(
                    f"{member.key} (attempt {member.attempt}, {member.host} pid {member.pid}) "
                    f"cannot register: attempt {holder.attempt} of it is live on {holder.host}, "
                    f"pid {holder.pid}, executor {holder.executor or 'unknown'}"
                )

        self._claim(f"{self._root}/members/{member.key}", data, refuse_newer)

    def await_generation(self, after: int, deadline: float) -> Generation:
        """See `Registry.await_generation`."""
        heard: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
        latest: dict[str, bytes | None] = {}
        watches = [
            self._session.watch_data(f"{self._root}/{name}").subscribe(
                lambda data, name=name: heard.put((name, data))  # type: ignore[misc]
            )
            for name in ("generations", "stop")
        ]
        watches.append(self._session.at_end(lambda: heard.put(("", None))))
        try:
            while True:
                self._session.check_usable(f"waiting for the generation after {after}")
                number = self._newest(latest)
                if number > after:
                    return self._read_generation(number, deadline)
                name, data = heard.get(timeout=max(0.0, deadline - time.monotonic()))
                latest.update({name: data} if name else {})
        except queue.Empty as error:
            raise RendezvousTimeoutError(
                f"no generation after {after} was published before the deadline: roles may not "
                "have registered in time (registry.register_timeout_s)",
                missing=(),
            ) from error
        finally:
            for unsubscribe in watches:
                unsubscribe()

    def _newest(self, latest: dict[str, bytes | None]) -> int:
        """Return the newest generation's number; 0 for none, or not everything heard yet."""
        if len(latest) < 2:
            return 0
        generations, stop = latest["generations"], latest["stop"]
        if generations is None or stop is None:
            raise self._gone()
        if stop:
            raise _stopped(StopNotice.from_json(decode(stop, "stop")), "no generation comes")
        return int(generations.split()[0])

    def _read_generation(self, number: int, deadline: float) -> Generation:
        with self._tree_present():
            node = self._session.read(f"{self._root}/generations/{number}", deadline=deadline)
        return Generation.from_json(decode(node.data, f"generation {number}"))

    def publish_outcome(self, generation: int, key: TaskKey, outcome: Document) -> None:
        """See `Registry.publish_outcome`."""
        data = encode(outcome, f"the outcome of {key} in generation {generation}")
        parent = f"{self._root}/outcomes/{generation}"
        with suppress(NodePresentError):
            try:
                self._session.create(f"{parent}/{key}", data)
            except NodeMissingError:
                self._ensure(parent)
                with self._tree_present():
                    self._session.create(f"{parent}/{key}", data)

    def publish_progress(self, key: TaskKey, progress: Document) -> None:
        """See `Registry.publish_progress`. Refused when another host has taken the role over."""
        data = encode(progress, f"the progress of {key}")
        path = f"{self._root}/progress/{key}"
        with suppress(NodeMissingError):
            if key in self._reported:
                if not self._session.write(path, data).mine:
                    # One stale record stands until the new host's next.
                    raise _fenced(key)
                return
        holder = self._session.read_each([f"{self._root}/members/{key}"])
        if not all(node.mine for node in holder.values()):
            raise _fenced(key)
        self._claim(path, data, lambda _: None)
        self._reported.add(key)

    def _claim(self, path: str, data: bytes, refuse: Callable[[bytes], None]) -> None:
        """Make a node this session's own, holding `data`.

        Its own already: rewritten where it differs. Another session's: taken over, unless `refuse`
        raises on its data. None's: created.
        """
        for _ in range(_TRIES):
            with self._tree_present(), suppress(NodePresentError):
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

    # -- the driver ---------------------------------------------------------------------------

    def members(self) -> dict[TaskKey, Member]:
        """See `Registry.members`."""
        documents = self._documents(f"{self._root}/members")
        return {key: Member.from_json(document) for key, document in documents.items()}

    def publish_generation(self, generation: Generation) -> None:
        """See `Registry.publish_generation`."""
        number = generation.number
        path = f"{self._root}/generations"
        data = encode(generation.to_json(), f"generation {number}")
        # Version -1 would match any; no number below 1 comes next.
        expected = number - 1 if number > 0 else _NO_VERSION
        # The mark tells a commit of one's own, whose answer was lost, from another driver's.
        latest = f"{number} {secrets.token_hex(8)}".encode()
        with self._tree_present():
            try:
                self._session.commit(
                    [Write(path, latest, expected), Create(f"{path}/{number}", data)]
                )
            except (NodeMovedError, NodePresentError) as error:
                found = self._session.read(path).data
                if found != latest:
                    raise RendezvousError(
                        f"generation {number} cannot be published: the latest is "
                        f"{found.split()[0].decode()}; another driver may be at work on this run"
                    ) from error

    def outcomes(self, generation: int) -> dict[TaskKey, dict[str, Any]]:
        """See `Registry.outcomes`."""
        return self._documents(f"{self._root}/outcomes/{generation}")

    def progress(self) -> dict[TaskKey, dict[str, Any]]:
        """See `Registry.progress`."""
        return self._documents(f"{self._root}/progress")

    def stop(self, notice: StopNotice) -> None:
        """See `Registry.stop`."""
        # Version 0 is the tree's own empty node: whoever writes second finds another version.
        with self._tree_present(), suppress(NodeMovedError):
            self._session.write(f"{self._root}/stop", encode(notice.to_json(), "stop"), version=0)

    def stop_notice(self) -> StopNotice | None:
        """See `Registry.stop_notice`."""
        try:
            data = self._session.read(f"{self._root}/stop").data
        except NodeMissingError:
            return None
        return StopNotice.from_json(decode(data, "stop")) if data else None

    # -- watching -----------------------------------------------------------------------------

    def watch_members(self, listener: Callable[[frozenset[TaskKey]], None]) -> Subscription:
        """See `Registry.watch_members`."""
        return self._watch_keys(f"{self._root}/members", listener)

    def watch_outcomes(
        self, generation: int, listener: Callable[[frozenset[TaskKey]], None]
    ) -> Subscription:
        """See `Registry.watch_outcomes`."""
        path = f"{self._root}/outcomes/{generation}"
        self._ensure(path)
        return self._watch_keys(path, listener)

    def _watch_keys(
        self, path: str, listener: Callable[[frozenset[TaskKey]], None]
    ) -> Subscription:
        def tell(names: frozenset[str]) -> None:
            listener(frozenset(map(_key, names)))

        return self._session.watch_children(path).subscribe(tell)

    def watch_stop(self, listener: Callable[[StopNotice], None]) -> Subscription:
        """See `Registry.watch_stop`."""
        told = False

        def tell(data: bytes | None) -> None:
            nonlocal told
            if data and not told:
                told = True
                listener(StopNotice.from_json(decode(data, "stop")))

        return self._session.watch_data(f"{self._root}/stop").subscribe(tell)

    def watch_connection(self, listener: Callable[[Connection], None]) -> Subscription:
        """See `Registry.watch_connection`."""
        return self._session.watch_connection(listener)

    def close(self) -> None:
        """See `Registry.close`."""
        self._session.close()

    def erase(self) -> None:
        """See `Registry.erase`. Raises RendezvousError when role hosts keep writing meanwhile."""
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
        branches = [*attempts, *(f"{root}/{n}" for n in ("members", "progress", "generations"))]
        for branch in branches:
            session.delete_each(f"{branch}/{name}" for name in session.children(branch))
        session.commit([Delete(p) for p in (*branches, f"{root}/outcomes", f"{root}/stop", root)])
        job = root.rpartition("/")[0]
        for parent in (job, job.rpartition("/")[0]):
            # Not empty where other runs or jobs are, and then it stays.
            with suppress(NodeError):
                if parent:
                    session.commit([Delete(parent)])

    # -- nodes --------------------------------------------------------------------------------

    def _documents(self, path: str) -> dict[TaskKey, dict[str, Any]]:
        try:
            names = self._session.children(path)
        except NodeMissingError:
            return {}
        nodes = self._session.read_each(f"{path}/{name}" for name in names)
        return {
            _key(node_path.rpartition("/")[2]): decode(node.data, node_path)
            for node_path, node in nodes.items()
        }

    def _ensure(self, path: str) -> None:
        with self._tree_present(), suppress(NodePresentError):
            self._session.create(path)

    @contextmanager
    def _tree_present(self) -> Iterator[None]:
        try:
            yield
        except NodeMissingError as error:
            raise self._gone() from error

    def _gone(self) -> RendezvousClosedError:
        return RendezvousClosedError(
            f"the run has ended: {self._root} is no longer in the registry", reason="erased"
        )


def _stopped(notice: StopNotice, what: str) -> RendezvousClosedError:
    return RendezvousClosedError(
        f"{what}: the run was stopped ({notice.outcome}): {notice.reason}", reason=notice.reason
    )


def _fenced(key: TaskKey) -> RendezvousError:
    return RendezvousError(f"the progress of {key} is refused: another host now plays it")
