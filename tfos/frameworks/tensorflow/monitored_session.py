"""Open a between-graph program's session so that nothing is lost: restore, save, report by itself.

TensorFlow's own MonitoredTrainingSession keeps checkpoints in a directory that every parameter
server must share, and knows nothing of the data. Here the chief writes all variables itself, with
every worker's data position, into the job's checkpoint store.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfos.errors import InfrastructureError
from tfos.frameworks.contract import saved_variables
from tfos.read_plan import FeedPosition

if TYPE_CHECKING:
    from tfos.base import TrainContext

__all__ = ["SESSION", "open_session"]

log = logging.getLogger(__name__)

SESSION = "session"
"""The name in a checkpoint of what the monitored session keeps."""
_LOOK_EVERY_S = 0.2
_CHIEF_WAIT_S = 600
REPORT_EVERY_S = 1.0


def open_session(ctx: TrainContext, hooks: Sequence[Any]) -> Any:
    """Return the MonitoredSession of this process's default graph; see `TrainContext`."""
    import tensorflow as tf

    v1 = tf.compat.v1
    keeper = _keeper(ctx)
    target, config = ctx.server.target, ctx.session_config()
    if not ctx.is_chief:
        return v1.train.MonitoredSession(_worker_sessions(target, config), hooks=[keeper, *hooks])
    # Built before the graph is finalised, and on this process: parameter servers share no disk.
    with tf.device(f"/job:{ctx.role}/task:{ctx.index}/device:CPU:0"):
        saver = v1.train.Saver(sharded=False, max_to_keep=None)
    keeper.saver = saver
    scaffold = v1.train.Scaffold(saver=saver)
    opened: list[Any] = []

    def create(checkpoint: str | None) -> None:
        # Not one that opens itself again after an error: that would put the variables back to the
        # checkpoint while workers go on. A lost parameter server ends the generation instead.
        opened.append(
            v1.train.SingularMonitoredSession(
                hooks=[keeper, *hooks],
                scaffold=scaffold,
                master=target,
                config=config,
                checkpoint_filename_with_path=checkpoint,
            )
        )

    def read(directory: str) -> None:
        create(saved_variables(directory, SESSION, "ctx.monitored_session"))

    found = ctx.checkpoints.restore(read)
    if found is None:
        create(None)
    else:
        keeper.positions = ctx.facts.continued_positions(found)
        ctx.link.notify(f"resumed from step {found.step} ({found.path})")
    return opened[0]


def _worker_sessions(target: str, config: Any) -> Any:
    """Return a creator of sessions that wait until the chief has initialised the variables."""
    import tensorflow as tf

    v1 = tf.compat.v1

    class WorkerSessions(v1.train.SessionCreator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self._manager: Any = None

        def create_session(self) -> Any:
            if self._manager is None:
                scaffold = v1.train.Scaffold()
                scaffold.finalize()
                # TensorFlow's own creator looks every 30 s, which is a recovery ten times as long.
                self._manager = v1.train.SessionManager(
                    local_init_op=scaffold.local_init_op,
                    ready_op=scaffold.ready_op,
                    ready_for_local_init_op=scaffold.ready_for_local_init_op,
                    graph=tf.compat.v1.get_default_graph(),
                    recovery_wait_secs=_LOOK_EVERY_S,
                )
            return self._manager.wait_for_session(target, config, max_wait_secs=_CHIEF_WAIT_S)

    return WorkerSessions()


def _keeper(ctx: TrainContext) -> Any:
    """Make the hook that reports the global step and, on the chief, saves in time and at the end.

    Both happen in a thread of their own: a chief that only waits for its workers runs no step.
    """
    import tensorflow as tf

    v1 = tf.compat.v1

    class Keeper(v1.train.SessionRunHook):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.saver: Any = None
            self.positions: dict[int, FeedPosition] = {}
            self._ended = threading.Event()
            self._error: BaseException | None = None
            self._thread: threading.Thread | None = None
            self._saved_step = -1

        def begin(self) -> None:
            self._step = v1.train.get_or_create_global_step()

        def after_create_session(self, session: Any, coord: Any) -> None:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._keep, args=(session,), name="tfos-keeper", daemon=True
                )
                self._thread.start()

        def before_run(self, run_context: Any) -> None:
            if self._error is not None:
                raise self._error

        def end(self, session: Any) -> None:
            self._ended.set()
            if self._thread is not None:
                self._thread.join()
            if self._error is not None:
                raise self._error
            self._report(session)
            if not ctx.checkpoints.flush(excused=True):
                self._saved_step = -1
            self._save(session)

        def _keep(self, session: Any) -> None:
            next_save = time.monotonic() + ctx.facts.checkpoint_every_s
            try:
                while not self._ended.wait(REPORT_EVERY_S):
                    self._report(session)
                    if time.monotonic() >= next_save:
                        self._save(session, excused=True)
                        next_save = time.monotonic() + ctx.facts.checkpoint_every_s
            except BaseException as error:
                # Raised in the program's own thread, at its next step or at its end.
                log.warning("checkpoints are no longer kept: %s", error)
                self._error = ctx.background_error = error

        def _report(self, session: Any) -> None:
            step = int(session.run(self._step))
            if step > 0:
                ctx.report(step)

        def _save(self, session: Any, excused: bool = False) -> None:
            if self.saver is None:
                return
            # How far workers had read before the variables are: rows may be used twice, never lost.
            try:
                self.positions.update(ctx.link.read_positions())
            except InfrastructureError as error:
                log.warning("%s: the checkpoint takes older positions", error)
            step = int(session.run(self._step))
            if step <= self._saved_step:
                return
            saved = ctx.checkpoints.save(
                step,
                lambda directory: self._write(session, directory),
                positions=dict(self.positions),
                excused=excused,
            )
            if saved:
                self._saved_step = step

        def _write(self, session: Any, directory: str) -> None:
            # The default graph is a thread's own; without one a Saver takes itself for eager.
            with session.graph.as_default():
                self.saver.save(
                    session,
                    os.path.join(directory, SESSION),
                    write_meta_graph=False,
                    write_state=False,
                )

    return Keeper()
