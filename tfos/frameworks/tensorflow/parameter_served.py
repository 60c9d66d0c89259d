"""What the architectures with parameter servers share: roles, who is fed, the servers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, ClassVar

from tfos.config import RolesConfig
from tfos.errors import ConfigError
from tfos.frameworks.contract import TRAIN, role_spec
from tfos.frameworks.tensorflow.base import TensorFlowFramework
from tfos.frameworks.tensorflow.server_import import import_for_serving
from tfos.topology import Role, RoleSpec
from tfos.training_parts import HostLink, ProcessFacts

__all__ = ["SERVER_POLL_S", "ParameterServed", "reach_directly", "start_server"]

SERVER_POLL_S = 0.05


class ParameterServed(TensorFlowFramework):
    """A chief that trains, workers, and parameter servers that hold the variables."""

    workers_train: ClassVar[bool]
    """Whether workers run ``train`` themselves, or serve the chief."""

    def roles(self, config: RolesConfig) -> tuple[RoleSpec, ...]:
        """Return chief, workers and parameter servers."""
        if config.num_ps < 1:
            raise ConfigError(f"--arch {self.name} needs --num-ps of 1 or more")
        return (
            role_spec(Role.CHIEF, 1, config.chief, trains=True),
            role_spec(
                Role.WORKER,
                config.num_workers,
                config.worker,
                trains=self.workers_train,
                # The variables live on: a worker is replaced while the others go on.
                respawns=True,
            ),
            role_spec(Role.PS, config.num_ps, config.ps, trains=False),
        )

    def import_libraries(self, role: Role) -> None:
        """Import TensorFlow, and only its server where no code of the user's runs."""
        if role is Role.PS or (role is Role.WORKER and not self.workers_train):
            import_for_serving(fed=role is Role.WORKER)
        else:
            super().import_libraries(role)

    def feeds(self, role: Role, datasets: Sequence[str]) -> tuple[str, ...]:
        """Return ``train`` for workers, every other DataFrame for the chief."""
        if role is Role.WORKER:
            return tuple(name for name in datasets if name == TRAIN)
        if role is Role.CHIEF:
            return tuple(name for name in datasets if name != TRAIN)
        return ()

    def serve(self, facts: ProcessFacts, link: HostLink) -> None:
        """Run a TensorFlow server until the run is stopped."""
        server = start_server(facts)
        while not link.should_stop():
            time.sleep(SERVER_POLL_S)
        del server  # TensorFlow has no stop for it: it ends with the process.


def reach_directly(hosts: Iterable[str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Have gRPC connect to the cluster's hosts itself, whatever proxy the environment names.

    It obeys ``grpc_proxy``, ``https_proxy`` and ``http_proxy``, but for the hosts in
    ``no_grpc_proxy`` or, without that, in ``no_proxy``. Other clients in this process are left to
    their proxy. Before the process's first gRPC call.
    """
    exempt = environ.get("no_grpc_proxy") or environ.get("no_proxy") or ""
    names = [name.strip() for name in exempt.split(",") if name.strip()]
    environ["no_grpc_proxy"] = ",".join(dict.fromkeys([*names, *hosts]))


def start_server(facts: ProcessFacts) -> Any:
    """Start this process's TensorFlow server on the port its role host holds.

    Raises
    ------
    tensorflow.errors.UnknownError
        If the port cannot be bound.
    """
    # tf.distribute.Server and tf.train.ClusterSpec, without what else the package would import.
    from tensorflow.python.training.server_lib import ClusterSpec, Server

    reach_directly(endpoint.host for endpoint in facts.cluster.endpoints.values())
    return Server(
        ClusterSpec(facts.cluster.by_role),
        job_name=facts.key.role.value,
        task_index=facts.key.index,
        protocol="grpc",
        start=True,
    )
