"""Name the faults of a drill: what happens to whom, and when. Pure; `tfos.launcher` causes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tfos.errors import ConfigError
from tfos.topology import Role, TaskKey

__all__ = ["ACTIONS", "POINTS", "Drill", "Fault"]

ACTIONS = {
    "kill": "SIGKILL",
    "stop": "SIGSTOP: it hangs",
    "exit": "exit=CODE: the training process exits with this code, 0 to 255",
    "slow": "slow=SECONDS: it runs for a tenth of the time, for so long (at most 999999.999)",
    "expire": "its ZooKeeper session expires",
    "cut": "cut=SECONDS: its network is cut, for so long (at most 999999.999)",
    "fill": "fill=SECONDS: its temporary directory's disk is full (at most 999999.999)",
}
"""What can be done, and what it means."""

POINTS = {
    "register": "before it registers",
    "feed": "once it has begun, before the first step",
    "step": "step=N: once training has completed step N",
    "checkpoint": "in the middle of a checkpoint",
    "shutdown": "once training has ended, while it shuts down",
}
"""When it can be done, and what that means."""

_PARTS = {"": "process", "/host": "host", "/executor": "executor"}
_ALONE = ("driver", "zookeeper")
_SUFFERED_BY = {
    "exit": ("process",),
    "slow": ("process",),
    "expire": ("process",),
    "cut": ("host", "executor", "zookeeper"),
    "fill": ("host",),
}
"""What an action can be done to, where that is not everything."""
_WRITTEN = {
    "process": "a role's process, such as worker-0",
    "host": "a role's host, such as worker-0/host",
    "executor": "its /executor",
    "zookeeper": "zookeeper",
}
_FAULT = re.compile(
    r"(?P<action>[^=:@]+)(=(?P<amount>[^:@]*))?"
    r":(?P<target>[^/:@]+)(?P<part>/[^:@]*)?"
    r"@(?P<point>[^=:@]+)(=(?P<step>[0-9]+))?"
)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")
_NUMBERS = {
    "exit": re.compile(r"1?[0-9]{1,2}|2[0-4][0-9]|25[0-5]"),
    "slow": _SECONDS,
    "cut": _SECONDS,
    "fill": _SECONDS,
}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Parameters
    ----------
    action
        One of `ACTIONS`.
    amount
        Its number, where it takes one.
    part
        What suffers it: a role's training ``process``, its role ``host`` (the Spark task's Python
        worker), its ``executor`` (the JVM), the ``driver`` or the embedded ``zookeeper``.
    key
        The role; None for the last two.
    point
        One of `POINTS`.
    step
        For ``step``: which.
    """

    action: str
    amount: float
    part: str
    key: TaskKey | None
    point: str
    step: int = 0

    def __str__(self) -> str:
        amount = f"={self.amount:.9g}" if self.action in _NUMBERS else ""
        target = self.part if self.key is None else str(self.key)
        part = f"/{self.part}" if self.part in ("host", "executor") else ""
        step = f"={self.step}" if self.point == "step" else ""
        return f"{self.action}{amount}:{target}{part}@{self.point}{step}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``ACTION:TARGET@POINT``.

        Raises
        ------
        ConfigError
            If it is of another form; says what is possible.
        """
        match = _FAULT.fullmatch(text.strip())
        if match is None:
            raise _malformed(text, "it is not of that form")
        action, point, target = match["action"], match["point"], match["target"]
        if action not in ACTIONS:
            raise _malformed(text, f"ACTION is one of {', '.join(ACTIONS)}")
        amount = match["amount"]
        if action not in _NUMBERS and amount is not None:
            raise _malformed(text, f"{action} takes no number")
        if action in _NUMBERS and not _NUMBERS[action].fullmatch(amount or ""):
            raise _malformed(text, f"write {ACTIONS[action]}")
        if point not in POINTS or (match["step"] is not None) != (point == "step"):
            raise _malformed(text, f"POINT is one of {', '.join(POINTS)} (step=N)")
        key, part = _target(text, target, match["part"] or "")
        possible = _SUFFERED_BY.get(action)
        if possible is not None and part not in possible:
            written = ", or ".join(_WRITTEN[each] for each in possible)
            raise _malformed(text, f"{action} is for {written}")
        return cls(action, float(amount or 0), part, key, point, int(match["step"] or 0))


def _target(text: str, target: str, part: str) -> tuple[TaskKey | None, str]:
    if target in _ALONE and not part:
        return None, target
    try:
        return TaskKey.parse(target), _PARTS[part]
    except (KeyError, ValueError):
        raise _malformed(
            text,
            f"TARGET is ROLE-INDEX (ROLE one of {', '.join(Role)}), as it is or with /host or "
            f"/executor, or {' or '.join(_ALONE)}",
        ) from None


def _malformed(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"--inject {text!r}: {why}; expected ACTION:TARGET@POINT, such as kill:worker-0@step=100, "
        "stop:ps-0@feed or kill:chief-0/executor@checkpoint"
    )


class Drill:
    """The faults that one process is to cause, each once. Not thread-safe."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._pending = list(faults)

    @property
    def watches_training(self) -> bool:
        """Whether a fault waits for how far training has come."""
        return any(fault.point in ("step", "checkpoint") for fault in self._pending)

    def due(self, point: str, step: int = 0) -> list[Fault]:
        """Return the faults whose point is reached now, and forget them."""
        due = [f for f in self._pending if f.point == point and f.step <= step]
        self._pending = [f for f in self._pending if f not in due]
        return due
