"""One run at a time on a job's checkpoints: a lease beside them, wherever they are kept.

Each run writes a claim of its own, ``lease-<run>``, and then looks for others'. Of two runs, the
one whose claim was complete last sees the other's: no storage has to create anything exclusively.
A claim is renewed all the time, and counts until its process is proven dead, or until an observer
has seen it unchanged for `EXPIRE_S` by the observer's own clock: clocks are never compared.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tfos import wire
from tfos.errors import (
    AlreadyRunningError,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointFencedError,
)
from tfos.fault.checkpoints.storage import CheckpointStorage
from tfos.fault.processes.identity import ProcessIdentity, Proof
from tfos.run_holder import describe_holder

__all__ = ["BEAT_S", "EXPIRE_S", "CheckpointLease", "refuse_if_taken_over"]

BEAT_S: Final = 10.0
"""How often a lease is renewed."""
EXPIRE_S: Final = 60.0
"""How long a lease counts that nobody renews."""

_logger = logging.getLogger(__name__)
_PREFIX: Final = "lease-"
# Written in turn: where a file cannot be replaced in one step, the other one is there meanwhile.
_FILES: Final = ("even", "odd")
_MOST_BYTES: Final = 4096
_POLLS_PER_BEAT: Final = 10
_LEAVE_WITHIN_S: Final = 20.0


@dataclass(frozen=True)
class _Claim:
    """A claim as read. One that cannot be understood is unheld, and counts until it expires."""

    content: bytes
    beat: int = -1
    epoch: int = 0
    held: bool = False
    holder: Mapping[str, Any] = field(default_factory=dict)
    process: ProcessIdentity | None = None

    @classmethod
    def parse(cls, content: bytes) -> _Claim:
        try:
            data = json.loads(content)
            return cls(
                content,
                beat=int(data["beat"]),
                epoch=int(data["epoch"]),
                held=data["held"] is True,
                holder=dict(data["holder"]),
                process=wire.from_json(ProcessIdentity, data["process"]),
            )
        except (ValueError, TypeError, KeyError):
            return cls(content)


class CheckpointLease:
    """The right to train on a job's checkpoints, held while in the context. For the driver.

    Entering returns at once where no other run has a claim, or only one that is proven dead: its
    process, if it was on this machine; an earlier attempt of the same YARN application. Otherwise
    it blocks until the other claim is renewed, at most `beat_s`, or until it expires, `expire_s`.
    Leaving blocks for as long as the storage does, at most 20 s. For one use.

    Parameters
    ----------
    storage
        Where the job's checkpoints are.
    holder
        The run, for others to read (`tfos.run_holder.holder_here`).
    on_lost
        Called once, from a thread, with what became of it, when another run has taken the lease:
        only after this process has not renewed it for `expire_s`. It must not block.
    process
        This process.
    beat_s, expire_s
        How often it is renewed, and how long it counts without that.
    """

    def __init__(
        self,
        storage: CheckpointStorage,
        holder: Mapping[str, str],
        on_lost: Callable[[str], None],
        *,
        process: ProcessIdentity | None = None,
        beat_s: float = BEAT_S,
        expire_s: float = EXPIRE_S,
    ) -> None:
        self._storage = storage
        self._holder = dict(holder)
        self._name = _PREFIX + holder["run_id"]
        self._on_lost = on_lost
        self._process = process or ProcessIdentity.here()
        self._beat_s = beat_s
        self._expire_s = expire_s
        self._beat = 0
        self._epoch = 0
        self._held = False
        self._left = threading.Event()
        self._renewing = threading.Thread(
            target=self._keep, name="tfos-checkpoint-lease", daemon=True
        )

    def __enter__(self) -> CheckpointLease:
        """Take the lease.

        Raises
        ------
        AlreadyRunningError
            If another run holds it, or takes it at this moment; names it.
        CheckpointError
            If the storage cannot be read or written.
        """
        try:
            self._take()
        except BaseException:
            self._withdraw()
            raise
        self._renewing.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Give the lease back. Where that fails, it expires."""
        self._left.set()
        # A storage that hangs must not keep the run from ending.
        self._renewing.join(_LEAVE_WITHIN_S)

    def _take(self) -> None:
        seen: dict[str, tuple[bytes, float]] = {}
        self._write()
        written = time.monotonic()
        while rivals := self._rivals():
            now = time.monotonic()
            for name, claim in rivals.items():
                first_seen = seen.setdefault(name, (claim.content, now))
                renewed = first_seen[0] != claim.content
                proof = Proof.NONE
                if claim.process is not None:
                    proof = claim.process.judged_from(self._process)
                if proof is Proof.DEAD or (not renewed and now > first_seen[1] + self._expire_s):
                    self._epoch = max(self._epoch, claim.epoch)
                    self._storage.remove(name, _FILES[0])
                elif renewed or proof is Proof.ALIVE:
                    # Of two that come at once one stays, by name, and waits for the other to go.
                    if claim.held or name < self._name:
                        raise self._refused(name, claim)
                elif first_seen[1] == now:
                    self._announce(claim)
            if now > written + self._beat_s:
                self._write()
                written = now
            time.sleep(self._beat_s / _POLLS_PER_BEAT)
        self._epoch += 1
        self._held = True
        self._write()

    def _announce(self, claim: _Claim) -> None:
        _logger.info(
            "The checkpoints in %s are held (%s): waiting at most %g s for a sign of life, in case "
            "that run has died",
            self._storage.location,
            describe_holder(claim.holder),
            self._expire_s,
        )

    def _refused(self, name: str, claim: _Claim) -> AlreadyRunningError:
        holder = describe_holder(claim.holder)
        return AlreadyRunningError(
            f"this job is already running ({holder}) and holds its checkpoints by "
            f"{self._storage.path(name)}: wait for that run to end or kill it, or submit under "
            "another --name or --checkpoint-dir",
            holder=holder,
        )

    def _keep(self) -> None:
        try:
            self._renew()
        finally:
            self._withdraw()

    def _renew(self) -> None:
        failed = False
        while not self._left.wait(self._beat_s):
            try:
                claims = _claims(self._storage)
                taker = _taker(claims, self._epoch)
                if taker is not None or self._name not in claims:
                    # What removed this claim may not have written yet that it holds the lease.
                    self._on_lost(_lost(self._storage, taker or next(iter(claims.values()), None)))
                    return
                self._write()
                failed = False
            except CheckpointError as error:
                if not failed:
                    _logger.warning(
                        "the lease of the checkpoints could not be renewed; unless it is within "
                        "%g s another run may take it: %s",
                        self._expire_s,
                        error,
                    )
                failed = True

    def _rivals(self) -> dict[str, _Claim]:
        claims = _claims(self._storage)
        claims.pop(self._name, None)
        return claims

    def _write(self) -> None:
        self._beat += 1
        claim = {
            "beat": self._beat,
            "epoch": self._epoch,
            "held": self._held,
            "holder": self._holder,
            "process": wire.to_json(self._process),
        }
        self._storage.write(self._name, _FILES[self._beat % 2], json.dumps(claim).encode())

    def _withdraw(self) -> None:
        try:
            self._storage.remove(self._name, _FILES[0])
        except CheckpointError as error:
            _logger.warning("the lease of the checkpoints stays until it expires: %s", error)


def refuse_if_taken_over(storage: CheckpointStorage, run_id: str) -> None:
    """Raise CheckpointFencedError if a run other than `run_id` holds the lease of a storage now.

    For who is about to commit a checkpoint; without a run, and without a lease, nothing is refused.
    """
    if not run_id:
        return
    claims = _claims(storage)
    own = claims.get(_PREFIX + run_id)
    taker = _taker(claims, -1 if own is None or not own.held else own.epoch)
    if taker is not None and taker.holder.get("run_id") != run_id:
        raise CheckpointFencedError(_lost(storage, taker))


def _claims(storage: CheckpointStorage) -> dict[str, _Claim]:
    """Return the claims in a storage by their names."""
    return {
        name: max(
            (_Claim.parse(_content(storage, name, file)) for file in _FILES),
            key=lambda claim: claim.beat,
        )
        for name in storage.names()
        if name.startswith(_PREFIX)
    }


def _content(storage: CheckpointStorage, name: str, file: str) -> bytes:
    """Return what is written there; of what is no file of ours, what is wrong with it."""
    try:
        return storage.read(name, file, _MOST_BYTES) or b""
    except CheckpointCorruptError as error:
        return str(error).encode()


def _taker(claims: Mapping[str, _Claim], epoch: int) -> _Claim | None:
    """Return the claim that holds the lease in a later epoch, if there is one."""
    return next((claim for claim in claims.values() if claim.held and claim.epoch > epoch), None)


def _lost(storage: CheckpointStorage, taker: _Claim | None) -> str:
    by = "" if taker is None else f" to {describe_holder(taker.holder)}"
    return (
        f"the lease of the checkpoints in {storage.location} was lost{by}: it had not been renewed "
        f"for {EXPIRE_S:g} s"
    )
