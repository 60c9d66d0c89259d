"""Be a training process's line to its role host: beats, progress, questions, answers."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from tfos.errors import InfrastructureError
from tfos.fault.processes.channel import ControlChannel
from tfos.launcher.handover.notices import notice
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

    def tell(self, kind: str, **content: Any) -> None:
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
        self._unsent: dict[str, Any] | None = None
        self._specs: SimpleQueue[str | None] = SimpleQueue()
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
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

    def tell(self, kind: str, **content: Any) -> None:
        """Send a message that must arrive."""
        self._channel.send({"type": kind, **content})

    def notify(self, text: str, *, warning: bool = False) -> None:
        """Publish one line for the run's log; see `HostLink.notify`."""
        level = "warning" if warning else "info"
        self.tell("notice", **notice(text, level, time.time()))

    def report(self, step: int, rows: int, metrics: Metrics) -> None:
        """Send progress, or keep it for `flush` when one was sent a moment ago."""
        self._unsent = {"step": step, "rows": rows, "metrics": dict(metrics)}
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_EVERY_S
        if self._channel.send({"type": "progress", **self._unsent}, droppable=True):
            self._unsent = None

    def aim(self, epochs: int | None, max_steps: int | None) -> None:
        """Publish what ends the training; see `HostLink.aim`."""
        self.tell("aim", epochs=epochs, max_steps=max_steps)

    def flush(self) -> None:
        """Send the last progress and position, where not sent: the run's record shows them."""
        self._channel.send(self._sign_of_life())
        if self._unsent is not None:
            self.tell("progress", **self._unsent)
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
        self.tell("ask", what="positions", id=question)
        deadline = time.monotonic() + ANSWER_WAIT_S
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise InfrastructureError(
                    f"the role host did not say within {ANSWER_WAIT_S:g} s how far workers have "
                    "read: it is overloaded or cut off from ZooKeeper"
                ) from None
            if answer["id"] == question:
                found = answer["positions"].items()
                return {int(feed): FeedPosition(*read) for feed, read in found}

    def _sign_of_life(self) -> dict[str, Any]:
        position, reading = self.read()
        return {
            "type": "beat",
            "read": None if position is None else list(position),
            "reading": reading,
        }

    def _beat(self) -> None:
        while True:
            self._beating.wait()
            try:
                self._channel.send(self._sign_of_life(), droppable=True)
            except InfrastructureError:
                return  # the host is gone, and takes this process with it
            time.sleep(BEAT_EVERY_S)

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.receive(3600.0)
            except EOFError:
                self._stop.set()
                self._specs.put(None)
                return
            except InfrastructureError as error:
                log.warning("%s", error)
                continue
            if message is not None:
                self._on_message(message)

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "begin":
            self._on_running(message["workers"])
            self._specs.put(message["spec"])
        elif kind == "stop":
            self._stop.set()
            self._specs.put(None)
        elif kind == "running":
            self._on_running(message["workers"])
        elif kind == "answer":
            self._answers.put(message)
        elif kind == "exit":  # a drill
            os._exit(message["code"])

    def _on_running(self, workers: list[str]) -> None:
        self._workers = frozenset(TaskKey.parse(text) for text in workers)
