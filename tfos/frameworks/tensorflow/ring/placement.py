"""Say which rank every worker of a generation has, and where it stands among its host's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfos.topology import ClusterSpec, Endpoint, TaskKey

__all__ = ["RankPlace", "place_of", "ranks_by_host"]


@dataclass(frozen=True)
class RankPlace:
    """One rank's place in the ring.

    Parameters
    ----------
    rank, size
        Its rank among all, from 0, and how many there are.
    local_rank, local_size
        The same among the ranks of its host.
    cross_rank, cross_size
        The same among the ranks of this `local_rank`, one a host.
    host
        Its host.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int
    host: str

    def environment(self, store: Endpoint, interface: str) -> dict[str, str]:
        """Return what Horovod reads when it is initialised, `store` being the rendezvous.

        Names as of Horovod 0.28.1, ``horovod/common/common.h``.
        """
        return {
            "HOROVOD_HOSTNAME": self.host,
            "HOROVOD_RANK": str(self.rank),
            "HOROVOD_SIZE": str(self.size),
            "HOROVOD_LOCAL_RANK": str(self.local_rank),
            "HOROVOD_LOCAL_SIZE": str(self.local_size),
            "HOROVOD_CROSS_RANK": str(self.cross_rank),
            "HOROVOD_CROSS_SIZE": str(self.cross_size),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": store.host,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(store.port),
            "HOROVOD_GLOO_IFACE": interface,
            # Past this Gloo aborts a process that waits for another. Ranks begin apart by the time
            # their imports take; one that hangs is found by tfos, sooner.
            "HOROVOD_GLOO_TIMEOUT_SECONDS": "300",
        }


def ranks_by_host(workers: Sequence[TaskKey], cluster: ClusterSpec) -> tuple[TaskKey, ...]:
    """Return the workers in the order of their ranks: those of one host together.

    Hosts come in the order of their first worker, so the first worker keeps rank 0.
    """
    return tuple(key for keys in _by_host(workers, cluster).values() for key in keys)


def place_of(key: TaskKey, ranks: Sequence[TaskKey], cluster: ClusterSpec) -> RankPlace:
    """Return the place of a worker, `ranks` being all of them in the order of their ranks."""
    hosts = _by_host(ranks, cluster)
    host = cluster.endpoints[key].host
    local_rank = hosts[host].index(key)
    # Hosts may have different numbers of ranks: only some have one of this local rank.
    across = [name for name, keys in hosts.items() if len(keys) > local_rank]
    return RankPlace(
        rank=list(ranks).index(key),
        size=len(ranks),
        local_rank=local_rank,
        local_size=len(hosts[host]),
        cross_rank=across.index(host),
        cross_size=len(across),
        host=host,
    )


def _by_host(keys: Sequence[TaskKey], cluster: ClusterSpec) -> dict[str, list[TaskKey]]:
    hosts: dict[str, list[TaskKey]] = {}
    for key in keys:
        hosts.setdefault(cluster.endpoints[key].host, []).append(key)
    return hosts
