"""Give a run its registry: the job's lock, an ensemble or a server of its own. On the driver."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from tfos.config import RegistryConfig
from tfos.errors import LaunchError, RendezvousError, TfosError
from tfos.java import jvm_refusal
from tfos.launcher.handover.registry_address import RegistryAddress
from tfos.launcher.handover.registry_nodes import job_lock
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.identity import RunIdentity

__all__ = ["RunRegistry", "only_run_of_job"]

log = logging.getLogger("tfos")


@contextmanager
def only_run_of_job(
    config: RegistryConfig, job_name: str, run_id: str, on_lost: Callable[[str], None]
) -> Iterator[None]:
    """Hold the job's lock, where an ensemble outlives this run and others can see it.

    An unreachable ensemble is said here, before hours of ETL; see `JobLock` for what else is.
    """
    if config.zookeeper is None:
        yield
        return
    hosts, prefix = _ensemble(config.zookeeper)
    job = f"{prefix}/tfos/{job_name}"
    timeouts = (config.session_timeout_s, config.connect_timeout_s)
    with job_lock(hosts, job, run_id, timeouts, on_lost):
        yield


class RunRegistry:
    """Where the roles of one run meet: below its own node, behind its own secret.

    Parameters
    ----------
    config
        Its settings.
    job_name, run_id
        The run.
    host
        The address at which executors reach this driver.
    note
        Called with an external ensemble's address; see `tfos.run`.
    """

    def __init__(
        self,
        config: RegistryConfig,
        job_name: str,
        run_id: str,
        host: str,
        note: Callable[[RegistryAddress], None],
    ) -> None:
        self._config = config
        self._node = f"/tfos/{job_name}/{run_id}"
        self._secret = secrets.token_hex(16)
        self._note = note
        self._identity = None if config.zookeeper is not None else RunIdentity.draw()
        self._server = (
            None if self._identity is None else EmbeddedZooKeeper(host, identity=self._identity)
        )
        self._starting: Future[None] | None = None

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have a server of our own start in the background, and stop it at the end."""
        if self._server is None:
            self._note(self.address())
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tfos-zookeeper") as pool:
            self._starting = pool.submit(self._server.start)
            try:
                yield
            finally:
                self._starting.exception()  # whatever came of it: over before the stop
                self._server.stop()

    def address(self) -> RegistryAddress:
        """Return where role hosts and driver connect; blocks until our own server answers.

        Raises
        ------
        LaunchError
            If it could not be started.
        """
        if self._server is None:
            assert self._config.zookeeper is not None
            hosts, prefix = _ensemble(self._config.zookeeper)
        else:
            assert self._starting is not None
            self._starting.result()
            hosts, prefix = self._server.address, ""
        return RegistryAddress(
            hosts=hosts,
            root=prefix + self._node,
            secret=self._secret,
            session_timeout_s=self._config.session_timeout_s,
            connect_timeout_s=self._config.connect_timeout_s,
            identity=self._identity,
        )

    def explained(self, error: RendezvousError) -> TfosError:
        """Return why the registry is not reached: `error`, or the end of our own server."""
        words = None if self._server is None else self._server.last_words
        if words is None:
            return error
        refusal = jvm_refusal("the embedded ZooKeeper", words)
        return refusal or LaunchError(f"the embedded ZooKeeper has ended: {words}")

    @property
    def server_pid(self) -> int | None:
        """The process id of our own server; None where there is none."""
        return None if self._server is None else self._server.pid


def _ensemble(zookeeper: str) -> tuple[str, str]:
    """Split ``HOST:PORT,...[/PATH]`` into the servers and the path that all runs live below."""
    hosts, slash, path = zookeeper.partition("/")
    return hosts, slash + path.rstrip("/") if path else ""
