"""Be the training process: the fresh Python in which TensorFlow and ``Job.train`` live.

Started by a role host as ``python -m tfos.launcher.training.main ARCH ROLE``. It imports what that
role needs, and waits until the host says what to play. What it has to say goes over the control
channel: phases, beats, progress, artifacts, and at the end one outcome.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import tfos
from tfos.base import Job, TrainContext
from tfos.errors import CheckpointError, InfrastructureError
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.fault.failures.error_text import user_traceback
from tfos.fault.failures.record import Failure, container_logs
from tfos.fault.processes import guard
from tfos.fault.processes.channel import ControlChannel
from tfos.fault.processes.forks import in_forked_children
from tfos.files.publish import publish_directory
from tfos.frameworks.contract import Framework, load_framework
from tfos.launcher.application.importing import import_as_parent, import_from
from tfos.launcher.application.job_state import unpickle_job
from tfos.launcher.handover.json_value import as_json
from tfos.launcher.handover.messages import Artifact, Ended, Phase
from tfos.launcher.handover.training_spec import STACKS_FILE, STACKS_SIGNAL, TrainingSpec
from tfos.launcher.training.checkpoints import StoredCheckpoints
from tfos.launcher.training.feed import TrainingFeed
from tfos.launcher.training.host_link import ChannelLink, TrainingLink
from tfos.launcher.training.quiet_import import import_quietly
from tfos.launcher.training.user_failure import describe_error
from tfos.topology import Role
from tfos.training_parts import Feed

log = logging.getLogger("tfos")

_CHANGES_SHOWN = 5


class StoppedError(BaseException):
    """SIGTERM arrived: unwind as for KeyboardInterrupt, past ``except Exception`` of user code."""


class TrainingProcess:
    """One life of a training process."""

    def __init__(self, spec: TrainingSpec, link: ChannelLink) -> None:
        self._spec = spec
        self._link = link

    def run(self) -> int:
        """Play the role to its end; return the exit code."""
        spec = self._spec
        self._enter("begun")
        framework = load_framework(spec.arch)
        job: Job | None = None
        result: Any = None
        failure: Failure | None = None
        try:
            feed = TrainingFeed.open(spec, self._link)
            if feed.is_fed:
                framework.take_feed(feed.service)
            self._link.read = feed.progress
            if spec.trains:
                job = _load_job(spec)
                result = self._train(framework, job, feed)
            else:
                framework.serve(spec.facts, self._link)
        except BaseException as error:
            if _sigterm_came:
                # The host knows why it ends this process; where somebody else did, that is a death.
                # Native code that was to pass the signal's exception on may make its own of it.
                if job is not None:
                    shut_down(job)
                raise StoppedError from error
            failure = self._failure(error)
        self._enter("ended")
        self._link.flush()
        self._link.send(Ended(result, failure))
        if job is not None:
            shut_down(job)
        return 0 if failure is None else 1

    def _train(self, framework: Framework, job: Job, feed: TrainingFeed) -> Any:
        return train(
            framework, job, self._spec, feed, self._link, connected=lambda: self._enter("connected")
        )

    def _enter(self, phase: str) -> None:
        self._link.send(Phase(phase, time.time()))

    def _failure(self, error: BaseException) -> Failure | None:
        if self._link.should_stop():
            # Whatever a process says that was told to stop is a consequence of that.
            log.info("stopped (%s)", type(error).__name__)
            return None
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return None
        return replace(
            describe_error(
                error, user_traceback(error), key=str(self._spec.facts.key), at=time.time()
            ),
            host=socket.gethostname(),
            pid=os.getpid(),
            logs=container_logs(os.environ),
        )


def train(
    framework: Framework,
    job: Job,
    spec: TrainingSpec,
    feed: Feed,
    link: TrainingLink,
    *,
    connected: Callable[[], None] = lambda: None,
) -> Any:
    """Run ``Job.train`` in this process to its end, its last checkpoint included.

    Parameters
    ----------
    connected
        Called once the runtime is up, before ``train`` begins.

    Returns
    -------
    Any
        What ``train`` returned, as a JSON value.
    """

    def export(write: Callable[[str], None], step: int) -> str | None:
        if spec.facts.model_dir is None:
            return None
        path = publish_directory(write, spec.facts.model_dir, version=max(step, 1))
        link.send(Artifact("model", path))
        return path

    with (
        framework.runtime(spec.facts, link) as runtime,
        StoredCheckpoints(_store(spec), spec, link, feed.progress) as checkpoints,
    ):
        connected()
        ctx = TrainContext(
            spec.facts,
            feed=feed,
            checkpoints=checkpoints,
            link=link,
            runtime=runtime,
            export_to=export,
        )
        returned = as_json(job.train(ctx))
        if ctx.is_chief:
            checkpoints.warn_of_unused()
    if returned.changed:
        more = len(returned.changed) - _CHANGES_SHOWN
        lines = [
            *returned.changed[:_CHANGES_SHOWN],
            *([f"and {more} more"] if more > 0 else []),
        ]
        link.notify(
            f"the record differs from what train returned: {'; '.join(lines)}", warning=True
        )
    return returned.value


def _load_job(spec: TrainingSpec) -> Job:
    sys.argv = [spec.program, *spec.facts.args]
    if spec.application is not None:
        import_from(spec.application)
    # Written 0600 by this process's own role host, which had it by Spark's own channel.
    return unpickle_job(Path(spec.job_file).read_bytes())


def _store(spec: TrainingSpec) -> CheckpointStore | None:
    if spec.checkpoint_url is None:
        return None
    return CheckpointStore(
        spec.checkpoint_url,
        spec.facts.job_name,
        keep=spec.checkpoint_keep,
        run_id=spec.facts.run_id,
        made_by=_made_by(spec.arch),
        passed_over=spec.passed_over,
    )


def _made_by(arch: str) -> dict[str, str]:
    versions = {"tfos": tfos.__version__, **load_framework(arch).versions()}
    return {"arch": arch, **{name: each for name, each in versions.items() if each is not None}}


def shut_down(job: Job) -> None:
    """Call ``Job.shutdown``; its error is logged."""
    try:
        job.shutdown()
    except Exception:
        # The outcome of train is what counts, and it is already told.
        log.exception("%s.shutdown raised", type(job).__name__)


_sigterm_came = False


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    global _sigterm_came
    _sigterm_came = True
    raise StoppedError


def prepare_children() -> None:
    """Give what the application forks, such as a pool's processes, SIGTERM's own effect back."""
    in_forked_children(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL), [signal.SIGTERM])


def main() -> None:
    """Run the training process that a role host started; it says over the channel what to play."""
    guard.install()
    signal.signal(signal.SIGTERM, _on_sigterm)
    prepare_children()
    # The terminal's Ctrl-C is the driver's to hear: it stops the run in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _write_stacks_when_asked()
    # TensorFlow's own chatter at INFO would bury the user's output: only tfos speaks at its level.
    logging.basicConfig(format="%(levelname).1s %(name)s: %(message)s")
    link = ChannelLink(ControlChannel.from_environment())
    try:
        code = _wait_and_play(link)
    except StoppedError:
        log.info("ended by SIGTERM")
        code = 128 + signal.SIGTERM
    except (CheckpointError, InfrastructureError):
        log.exception("the training process could not tell how it ended")
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # TensorFlow's servers and coordinator threads have no orderly end; they end here.
    os._exit(code)


def _wait_and_play(link: ChannelLink) -> int:
    # Before it is known what to play: those who wait for this process need not wait for the import.
    link.send(Phase("started", time.time()))
    arch, role = sys.argv[1:]
    framework = load_framework(arch)
    import_quietly(lambda: framework.import_libraries(Role(role)))
    link.send(Phase("imported", time.time()))
    path = link.await_begin()
    if path is None:
        return 0
    spec = TrainingSpec.read(path)
    log.setLevel(spec.log_level.upper())
    return TrainingProcess(spec, link).run()


def _write_stacks_when_asked() -> None:
    """Have a crash or a signal write every thread's stack to a file; in C, without a lock."""
    file = open(STACKS_FILE, "w", encoding="utf-8")  # noqa: SIM115 - for as long as we live
    faulthandler.enable(file)
    faulthandler.register(STACKS_SIGNAL, file=file, all_threads=True)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # in a process that `multiprocessing` spawned from the one above
    import_as_parent()
