"""The nodes of a run in its registry: the job's lock, and how nodes that nobody needs are removed.

By the driver at a run's end; by another driver or the client after one that was killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfos.errors import AlreadyRunningError, RendezvousError
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.registry.contract import Registry
from tfos.run_holder import holder_here

if TYPE_CHECKING:
    from tfos.registry.job_lock import JobLock

__all__ = ["erase_and_close", "erase_last_run", "erase_run", "job_lock"]

log = logging.getLogger("tfos")


def job_lock(
    hosts: str,
    job: str,
    run_id: str,
    timeouts: tuple[float, float],
    on_lost: Callable[[str], None] = lambda _: None,
) -> JobLock:
    """Return a job's lock, not taken yet; `timeouts` are the session's, and that of connecting."""
    from tfos.registry.job_lock import JobLock

    session_s, connect_s = timeouts
    return JobLock(
        hosts,
        f"{job}/lock",
        holder=holder_here(run_id),
        session_timeout_s=session_s,
        connect_timeout_s=connect_s,
        on_lost=on_lost,
    )


def erase_run(address: RegistryAddress) -> bool:
    """Remove the nodes of a run whose driver was killed; return whether none is left.

    Role hosts that still live find the tree gone, and end. Nothing there is fine, and a failure is
    told, not raised. Blocks for at most the registry's `connect_timeout_s` until a server answers.
    """
    try:
        registry = address.connect()
    except RendezvousError as error:
        log.warning("the run's nodes stay in ZooKeeper: %s", error)
        return False
    return erase_and_close(registry)


def erase_last_run(address: RegistryAddress) -> bool:
    """Do as `erase_run`, and leave nothing of the job that no run follows.

    Blocks until the dead driver's session is over too, at most `session_timeout_s` and 2 s.
    """
    if not erase_run(address):
        return False
    job, _, run_id = address.root.rpartition("/")
    timeouts = (address.session_timeout_s, address.connect_timeout_s)
    try:
        # Its lock goes with its session. The next to take it removes what is empty then.
        with job_lock(address.hosts, job, run_id, timeouts):
            pass
    except AlreadyRunningError:
        log.debug("another run of the job removes the node of %s", job)
    except RendezvousError as error:
        log.warning("the node of %s stays in ZooKeeper: %s", job, error)
    return True


def erase_and_close(registry: Registry) -> bool:
    """Remove a run's nodes, as its last act; return whether none is left.

    A failure is told, not raised: how the run ended counts.
    """
    try:
        registry.erase()
    except RendezvousError as error:
        log.warning("the run's nodes stay in ZooKeeper: %s", error)
        return False
    else:
        return True
    finally:
        registry.close()
