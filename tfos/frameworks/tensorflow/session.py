"""The `session` architecture: between-graph replication with tf.compat.v1 servers and sessions.

The chief and every worker run ``train``, each building its own graph whose variables live on the
parameter servers. A worker whose session outlives the chief hangs, so the chief ends last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tfos.base import TrainContext
from tfos.frameworks.tensorflow.base import TensorFlowRuntime
from tfos.frameworks.tensorflow.monitored_session import SESSION, open_session
from tfos.frameworks.tensorflow.parameter_served import SERVER_POLL_S, ParameterServed, start_server
from tfos.topology import Role, TaskKey
from tfos.training_parts import HostLink, ProcessFacts

__all__ = ["SessionFramework"]


class SessionFramework(ParameterServed):
    """The chief and every worker run ``train``; parameter servers serve them."""

    name = "session"
    summary = (
        "The chief and every worker run train between-graph (tf.compat.v1 sessions); --num-ps "
        "parameter servers hold the variables. For TF1-style code."
    )
    checkpoint_name = SESSION
    workers_train = True

    @contextmanager
    def runtime(self, facts: ProcessFacts, link: HostLink) -> Iterator[_SessionRuntime]:
        """Start this process's server, and wait until it reaches every parameter server.

        On a clean exit the chief waits for every worker to end.
        """
        runtime = _SessionRuntime(facts)
        runtime.connect()
        yield runtime
        if facts.key.role is Role.CHIEF:
            while link.running_workers() and not link.should_stop():
                time.sleep(SERVER_POLL_S)


class _SessionRuntime(TensorFlowRuntime):
    def __init__(self, facts: ProcessFacts) -> None:
        self._key: TaskKey = facts.key
        self._cluster = facts.cluster.by_role
        self.server = start_server(facts)

    def connect(self) -> None:
        """Block until the parameter servers answer; a session would wait for them unnoticed."""
        import tensorflow as tf

        config = self.session_config()
        with (
            tf.Graph().as_default(),
            tf.compat.v1.Session(self.server.target, config=config) as session,
        ):
            session.list_devices()

    def monitored_session(self, ctx: TrainContext, hooks: Sequence[Any]) -> Any:
        return open_session(ctx, hooks)

    @property
    def _device(self) -> str:
        return f"/job:{self._key.role}/task:{self._key.index}"

    def device_setter(self) -> Any:
        import tensorflow as tf

        return tf.compat.v1.train.replica_device_setter(
            worker_device=self._device, cluster=self._cluster
        )

    def session_config(self) -> Any:
        import tensorflow as tf

        return tf.compat.v1.ConfigProto(
            device_filters=["/job:ps", self._device], allow_soft_placement=True
        )
