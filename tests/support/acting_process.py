"""Act as a training process: a small program that says what a real one says, and trains nothing.

Started by a role's supervision as ``python -m support.acting_process ARCH ROLE``. What it does says
the parameter ``act``; without one it takes `STEPS` steps, or serves where its role does not train.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TypeVar

from tfos.fault.failures.record import Cause, Failure
from tfos.fault.processes.channel import ControlChannel
from tfos.launcher.handover.messages import (
    Beat,
    Begin,
    Ended,
    Exit,
    FromHost,
    FromProcess,
    Phase,
    Saving,
    Stop,
    from_host,
    to_json,
)
from tfos.launcher.handover.training_spec import TrainingSpec
from tfos.progress import Progress
from tfos.read_plan import FeedPosition
from tfos.topology import Role, TaskKey

__all__ = ["SAVE_EVERY", "STEPS"]

T = TypeVar("T")
STEPS = 30
SAVE_EVERY = 12
_STEP_S = 0.01
_BEAT_EVERY = 10
"""Turns."""
_PAUSE_S = 0.1
_DONE = "done"


class Acting:
    """One life of it."""

    def __init__(self) -> None:
        self._channel = ControlChannel.from_environment()
        self._own = Path()
        self._seen: dict[Path, str] = {}
        self._turns = 0

    def receive(self, kind: type[T]) -> T:
        """Wait for a message of a kind."""
        while True:
            message = self._receive(60.0)
            if isinstance(message, kind):
                return message

    def _receive(self, timeout_s: float) -> FromHost | None:
        message = self._channel.receive(timeout_s)
        return None if message is None else from_host(message)

    def send(self, message: FromProcess) -> None:
        """Send a message to the host."""
        self._channel.send(to_json(message))

    def tell_phase(self, name: str) -> None:
        """Say that a phase begins now."""
        self.send(Phase(name, time.time()))

    def beat(self, read: int | None = None) -> None:
        """Give a sign of life, having used the first `read` rows."""
        self.send(Beat(None if read is None else FeedPosition(1, read), read is not None))

    def is_told_to_stop(self, wait_s: float = 0.0) -> bool:
        """Heed what the host has said, if anything."""
        message = self._receive(wait_s)
        if isinstance(message, Exit):
            os._exit(message.code)
        return isinstance(message, Stop)

    def run(self) -> None:
        """Do as the spec says."""
        spec = TrainingSpec.read(self.receive(Begin).spec)
        facts, params = spec.facts, spec.facts.params
        self.tell_phase("begun")
        if "act" in params:
            self.act(params["act"], facts.key)
            return
        state = Path(params["state"])
        at = {key: state / f"at-{facts.generation}-{key}" for key in facts.cluster.endpoints}
        self._own = at[facts.key]
        self._seen = {at[key]: "" for key in needs(spec)}
        self.take_turn()
        while not all(path.exists() for path in at.values()):
            if self.is_told_to_stop(_STEP_S):
                return
            self.beat()
        if spec.trains:
            self.train(spec, state)
        else:
            self.serve()

    def take_turn(self, text: str = "") -> None:
        """Let those that need this process see that it runs."""
        self._turns += 1
        if self._turns % _BEAT_EVERY == 0:
            self.beat()
        new = self._own.with_suffix(".new")
        new.write_text(text or str(self._turns))
        new.rename(self._own)

    def may_step(self) -> bool:
        """Whether all that a step of this process needs have run since the last one.

        Whoever hangs or is gone holds it up.
        """
        now = {path: path.read_text() for path in self._seen}
        if any(text == self._seen[path] != _DONE for path, text in now.items()):
            return False
        self._seen = now
        return True

    def act(self, act: str, key: TaskKey) -> None:
        """Do what a test of one role wants to see."""
        print("acts", act)
        while act == "connect":
            self.beat()
            time.sleep(0.1)
        self.beat(40)
        self.send(Progress(5, 640, {"loss": 0.5}))
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        if act == "exit":
            os._exit(3)
        failure = None
        if act == "raise":
            failure = Failure(
                str(key),
                Cause.USER_CODE,
                "ZeroDivisionError: oh",
                time.time(),
                host="here",
                pid=os.getpid(),
                traceback="line 1",
            )
        if act == "run":
            self.receive(Stop)
            print("torn down", flush=True)
        self.send(Ended({"rmse": 1.0} if act == "done" else None, failure))

    def train(self, spec: TrainingSpec, state: Path) -> None:
        """Take every step after those that are saved, or that this role's last process took."""
        key = spec.facts.key
        saved, taken = state / f"saved-{key}", state / f"taken-{key}"
        done = int(saved.read_text()) if saved.exists() else 0
        if spec.continue_at is not None:
            done = spec.continue_at.row
        self.tell_phase("connected")
        # What a drill wants at this point comes now.
        stopped = self.is_told_to_stop(_PAUSE_S)
        while done < STEPS and not stopped:
            stopped = self.is_told_to_stop(_STEP_S)
            self.take_turn()
            if stopped or not self.may_step():
                continue
            done += 1
            with taken.open("a") as file:
                file.write(f"{done}\n")
            self.beat(done)
            self.send(Progress(done, done))
            if done % SAVE_EVERY == 0:
                self.save(saved, done)
        self.take_turn(_DONE)
        self.tell_phase("ended")
        self.send(Ended({"step": done}))
        # ``Job.shutdown``: what a drill wants here finds the process alive.
        time.sleep(_PAUSE_S)

    def save(self, saved: Path, step: int) -> None:
        """Keep a checkpoint, whole or not at all; a moment passes in the middle."""
        self.send(Saving(True))
        half = saved.with_suffix(".half")
        half.write_text(str(step))
        self.is_told_to_stop(_PAUSE_S)
        half.rename(saved)
        self.send(Saving(False))

    def serve(self) -> None:
        """Be there until the run is stopped."""
        while not self.is_told_to_stop(_STEP_S):
            self.take_turn()
        self.send(Ended())


def needs(spec: TrainingSpec) -> list[TaskKey]:
    """Return the roles that a process cannot take a step without."""
    others = [key for key in spec.facts.cluster.endpoints if key != spec.facts.key]
    if not spec.trains:
        return []
    # The workers of sessions are nobody's: each pulls and pushes by itself.
    return [key for key in others if spec.arch != "session" or key.role is Role.PS]


if __name__ == "__main__":
    Acting().run()
