"""The training process's end of the control channel: heartbeats, progress, requests."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from tfos.errors import InfrastructureError
from tfos.fault.processes.channel import ControlChannel
from tfos.launcher.handover.messages import (
    Beat,
    Begin,
    Exit,
    FromHost,
    FromProcess,
    Positions,
    PositionsWanted,
    Running,
    Stop,
    from_host,
    to_json,
)
from tfos.progress import Aim, Notice, Progress
from tfos.read_plan import FeedPosition
from tfos.topology import TaskKey
from tfos.training_parts import HostLink, Metrics

__all__ = ["ChannelLink", "TrainingLink"]

log = logging.getLogger("tfos")

REPORT_EVERY_S = 0.25
"""Progress is for people and stall detection: four times a second is plenty."""
BEAT_EVERY_S = 0.5
"""How often the host hears that this process lives, and how far it has read."""
ANSWER_WAIT_S = 15.0
_SPEC_WAIT_S = 3600.0


class TrainingLink(HostLink, Protocol):
    """What ``train`` needs of a line to its host."""

    def send(self, message: FromProcess) -> None:
        """Send a message that must arrive."""


class ChannelLink(TrainingLink):
    """The line to the role host; one thread listens to it and one beats.

    Attributes
    ----------
    read
        Says how far ``train`` has been used: (position or None, whether rows were handed out).
    """

    def __init__(self, channel: ControlChannel) -> None:
        self._channel = channel
        self._stop = threading.Event()
        self._workers: frozenset[TaskKey] = frozenset()
        self._next_report = 0.0
        self._unsent: Progress | None = None
        self._specs: SimpleQueue[str | None] = SimpleQueue()
        self._answers: SimpleQueue[Positions] = SimpleQueue()
        self._questions = itertools.count()
        self.read: Callable[[], tuple[FeedPosition | None, bool]] = lambda: (None, False)
        self._beating = threading.Event()
        # From the start: the host may want it to play while TensorFlow is still being imported.
        self._beating.set()
        threading.Thread(target=self._listen, name="tfos-control", daemon=True).start()
        threading.Thread(target=self._beat, name="tfos-beat", daemon=True).start()

    def await_begin(self) -> str | None:
        """Block until the host says what to play; return the spec's path, None for nothing.

        As long as the host lives, however long that is: it ends what it does not need. It does not
        listen to a process that waits, so there is no beat meanwhile.
        """
        self._beating.clear()
        while True:
            try:
                spec = self._specs.get(timeout=_SPEC_WAIT_S)
            except Empty:
                continue
            self._beating.set()
            return spec

    def send(self, message: FromProcess) -> None:
        """Send a message that must arrive."""
        self._channel.send(to_json(message))

    def notify(self, text: str, *, warning: bool = False) -> None:
        """Publish one line for the run's log; see `HostLink.notify`."""
        self.send(Notice.of(text, warning=warning, at=time.time()))

    def report(self, step: int, rows: int, metrics: Metrics) -> None:
        """Send progress, or keep it for `flush` when one was sent a moment ago."""
        self._unsent = Progress(step, rows, dict(metrics))
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_EVERY_S
        if self._channel.send(to_json(self._unsent), droppable=True):
            self._unsent = None

    def aim(self, epochs: int | None, max_steps: int | None) -> None:
        """Publish what ends the training; see `HostLink.aim`."""
        self.send(Aim(epochs, max_steps))

    def flush(self) -> None:
        """Send the last progress and position, where not sent: the run's record shows them."""
        self.send(self._sign_of_life())
        if self._unsent is not None:
            self.send(self._unsent)
            self._unsent = None

    def should_stop(self) -> bool:
        """Whether the host said to stop."""
        return self._stop.is_set()

    def running_workers(self) -> frozenset[TaskKey]:
        """Return the workers that have not ended yet, as last heard."""
        return self._workers

    def read_positions(self) -> dict[int, FeedPosition]:
        """See `HostLink.read_positions`; blocks for at most 15 s."""
        question = next(self._questions)
        self.send(PositionsWanted(question))
        deadline = time.monotonic() + ANSWER_WAIT_S
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise InfrastructureError(
                    f"the role host did not say within {ANSWER_WAIT_S:g} s how far workers have "
                    "read: it is overloaded or cut off from ZooKeeper"
                ) from None
            if answer.number == question:
                return dict(answer.positions)

    def _sign_of_life(self) -> Beat:
        return Beat(*self.read())

    def _beat(self) -> None:
        while True:
            self._beating.wait()
            try:
                self._channel.send(to_json(self._sign_of_life()), droppable=True)
            except InfrastructureError:
                return  # the host is gone, and takes this process with it
            time.sleep(BEAT_EVERY_S)

    def _listen(self) -> None:
        while True:
            try:
                received = self._channel.receive(3600.0)
                message = None if received is None else from_host(received)
            except EOFError:
                self._stop.set()
                self._specs.put(None)
                return
            except (InfrastructureError, ValueError) as error:
                log.warning("a message of the role host was left out: %s", error)
                continue
            if message is not None:
                self._on_message(message)

    def _on_message(self, message: FromHost) -> None:
        match message:
            case Begin(spec, workers):
                self._workers = frozenset(workers)
                self._specs.put(spec)
            case Running(workers):
                self._workers = frozenset(workers)
            case Positions():
                self._answers.put(message)
            case Stop():
                self._stop.set()
                self._specs.put(None)
            case Exit(code):
                os._exit(code)
