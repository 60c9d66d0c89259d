"""Keep the registry contract in one run's tree of nodes: what `RunTree` lays out and holds."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from tfos.errors import RendezvousError
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
    NodeMissingError,
    NodeMovedError,
    NodePresentError,
    NodeSession,
    Write,
)
from tfos.registry.orders import Order, OrderLine
from tfos.registry.run_tree import RunTree
from tfos.topology import Life, TaskKey

__all__ = ["TreeRegistry"]

_TRIES: Final = 10
_key = functools.lru_cache(maxsize=65_536)(TaskKey.parse)
_life = functools.lru_cache(maxsize=65_536)(Life.parse)
_NO_VERSION: Final = 2**31 - 1
_T = TypeVar("_T")


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
        self._tree = RunTree(session, root)
        self._reported: set[TaskKey] = set()
        try:
            session.read(f"{root}/stop")
        except NodeMissingError:
            if create:
                self._tree.create()

    # -- role hosts ---------------------------------------------------------------------------

    def register(self, member: Member) -> None:
        """See `Registry.register`."""
        data = encode(member, f"the membership of {member.key}")
        notice = self.stop_notice()
        if notice is not None:
            raise notice.refusal(member.key)

        def refuse_others(held: bytes) -> None:
            what = f"the membership of {member.key}"
            member.check_may_replace(decode(Member, held, what))

        self._tree.claim(f"{self._root}/members/{member.key}", data, refuse_others)

    def generation(self, number: int) -> Generation:
        """See `Registry.generation`."""
        try:
            data = self._session.read(f"{self._root}/generations/{number}").data
        except NodeMissingError as error:
            raise RendezvousError(
                f"generation {number} was not published: the latest is {self._latest()}"
            ) from error
        return decode(Generation, data, f"generation {number}")

    def _latest(self) -> int:
        """Return the number of the latest generation, 0 for none."""
        with self._tree.present():
            data = self._session.read(f"{self._root}/generations").data
        return Order.of_generations(data).generation

    def publish_outcome(self, generation: int, key: TaskKey, outcome: Document) -> None:
        """See `Registry.publish_outcome`."""
        data = encode(outcome, f"the outcome of {key} in generation {generation}")
        parent = f"{self._root}/outcomes/{generation}"
        with suppress(NodePresentError):
            try:
                self._session.create(f"{parent}/{key}", data)
            except NodeMissingError:
                self._tree.ensure(parent)
                with self._tree.present():
                    self._session.create(f"{parent}/{key}", data)

    def publish_failure(self, life: Life, failure: Document) -> None:
        """See `Registry.publish_failure`."""
        data = encode(failure, f"the failure of {life}")
        with self._tree.present(), suppress(NodePresentError):
            self._session.create(f"{self._root}/failures/{life}", data)

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
        self._tree.claim(path, data, lambda _: None)
        self._reported.add(key)

    # -- the driver ---------------------------------------------------------------------------

    def attend(self) -> None:
        """See `Registry.attend`."""

        def refuse(_: bytes) -> None:
            raise RendezvousError(
                f"the run at {self._root} already has a driver, of another session"
            )

        self._tree.claim(f"{self._root}/driver", b"", refuse)

    def members(self) -> dict[TaskKey, Member]:
        """See `Registry.members`."""
        return {_key(name): each for name, each in self._tree.documents("members", Member).items()}

    def publish_generation(self, generation: Generation) -> None:
        """See `Registry.publish_generation`."""
        number = generation.number
        path = f"{self._root}/generations"
        data = encode(generation, f"generation {number}")
        # Version -1 would match any; no number below 1 comes next.
        expected = number - 1 if number > 0 else _NO_VERSION
        # The mark tells a commit of one's own, whose answer was lost, from another driver's.
        latest = f"{number} {secrets.token_hex(8)}".encode()
        with self._tree.present():
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

    def order_respawn(self, life: Life) -> None:
        """See `Registry.order_respawn`."""
        latest = self._latest()
        if not 0 < life.generation <= latest:
            raise RendezvousError(f"{life} cannot be ordered: the latest generation is {latest}")
        path = f"{self._root}/respawns/{life.key}"
        self._tree.ensure(path)
        for _ in range(_TRIES):
            # A write whose answer was lost is seen here as an order that is not older.
            with self._tree.present(), suppress(NodeMovedError):
                node = self._session.read(path)
                if Order.of_respawns(node.data) < (life.generation, life.respawn):
                    self._session.write(path, str(life).encode(), version=node.version)
                return
        raise RendezvousError(f"{path} keeps changing: another driver may be at work on this run")

    def outcomes(self, generation: int) -> dict[TaskKey, dict[str, Any]]:
        """See `Registry.outcomes`."""
        documents = self._tree.documents(f"outcomes/{generation}", dict)
        return {_key(name): document for name, document in documents.items()}

    def failures(self) -> dict[Life, dict[str, Any]]:
        """See `Registry.failures`."""
        found = self._tree.documents("failures", dict)
        return {_life(name): document for name, document in found.items()}

    def failure(self, life: Life) -> dict[str, Any]:
        """See `Registry.failure`."""
        try:
            data = self._session.read(f"{self._root}/failures/{life}").data
        except NodeMissingError as error:
            raise RendezvousError(f"{life} has no failure written") from error
        return decode(dict, data, f"the failure of {life}")

    def progress(self) -> dict[TaskKey, dict[str, Any]]:
        """See `Registry.progress`."""
        found = self._tree.documents("progress", dict)
        return {_key(name): document for name, document in found.items()}

    def stop(self, notice: StopNotice) -> None:
        """See `Registry.stop`."""
        # Version 0 is the tree's own empty node: a second writer finds another version.
        with self._tree.present(), suppress(NodeMovedError):
            self._session.write(f"{self._root}/stop", encode(notice, "stop"), version=0)

    def stop_notice(self) -> StopNotice | None:
        """See `Registry.stop_notice`."""
        try:
            data = self._session.read(f"{self._root}/stop").data
        except NodeMissingError:
            return None
        return decode(StopNotice, data, "stop") if data else None

    # -- watching -----------------------------------------------------------------------------

    def watch_members(self, listener: Callable[[frozenset[TaskKey]], None]) -> Subscription:
        """See `Registry.watch_members`."""
        return self._watch_names("members", _key, listener)

    def watch_outcomes(
        self, generation: int, listener: Callable[[frozenset[TaskKey]], None]
    ) -> Subscription:
        """See `Registry.watch_outcomes`."""
        self._tree.ensure(f"{self._root}/outcomes/{generation}")
        return self._watch_names(f"outcomes/{generation}", _key, listener)

    def watch_failures(self, listener: Callable[[frozenset[Life]], None]) -> Subscription:
        """See `Registry.watch_failures`."""
        return self._watch_names("failures", _life, listener)

    def _watch_names(
        self, branch: str, parse: Callable[[str], _T], listener: Callable[[frozenset[_T]], None]
    ) -> Subscription:
        def tell(names: frozenset[str]) -> None:
            listener(frozenset(map(parse, names)))

        return self._session.watch_children(f"{self._root}/{branch}").subscribe(tell)

    def watch_orders(self, key: TaskKey, listener: Callable[[int, int], None]) -> Subscription:
        """See `Registry.watch_orders`."""
        # A watch follows a node that exists.
        self._tree.ensure(f"{self._root}/respawns/{key}")
        orders = OrderLine(listener)
        watch = self._session.watch_data
        subscriptions = [
            watch(f"{self._root}/generations").subscribe(orders.hear_generations),
            watch(f"{self._root}/respawns/{key}").subscribe(orders.hear_respawns),
        ]

        def unsubscribe() -> None:
            for subscription in subscriptions:
                subscription()

        return unsubscribe

    def watch_driver(self, listener: Callable[[], None]) -> Subscription:
        """See `Registry.watch_driver`."""
        told = False

        def tell(data: bytes | None) -> None:
            nonlocal told
            if data is None and not told:
                told = True
                listener()

        return self._session.watch_data(f"{self._root}/driver").subscribe(tell)

    def watch_stop(self, listener: Callable[[StopNotice], None]) -> Subscription:
        """See `Registry.watch_stop`."""
        told = False

        def tell(data: bytes | None) -> None:
            nonlocal told
            if data and not told:
                told = True
                listener(decode(StopNotice, data, "stop"))

        return self._session.watch_data(f"{self._root}/stop").subscribe(tell)

    def watch_connection(self, listener: Callable[[Connection], None]) -> Subscription:
        """See `Registry.watch_connection`."""
        return self._session.watch_connection(listener)

    def expire(self) -> None:
        """See `Registry.expire`."""
        self._session.expire()

    def close(self) -> None:
        """See `Registry.close`."""
        self._session.close()

    def erase(self) -> None:
        """See `Registry.erase`. Raises RendezvousError when role hosts keep writing meanwhile."""
        self._tree.erase()


def _fenced(key: TaskKey) -> RendezvousError:
    return RendezvousError(f"the progress of {key} is refused: another host now plays it")
