"""Say what the fault matrix consists of, and what each cell of it is to end in."""

from __future__ import annotations

from dataclasses import dataclass

from tfos.errors import ExitCode
from tfos.fault.drills.faults import POINTS

ACTIONS = ("kill", "stop", "exit", "expire", "cut")

CUT_S = 10
"""Longer than a session."""

RESPAWN, GENERATION = ("respawn",), ("new_generation",)


@dataclass(frozen=True)
class Subject:
    """What suffers a fault, in a job of its own.

    `trains`: it runs ``train``. `respawns`: its process is replaced in place. `exact`: whatever
    happens to it, every row counts exactly as often as epochs were asked for; others count at
    least so often. A step takes `batches`.
    """

    name: str
    arch: str
    target: str
    trains: bool = False
    respawns: bool = False
    exact: bool = True
    master: str = "local"
    app: str = "counted.py"
    rows: int = 8000
    step: int = 60
    batches: int = 1


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("worker", "ps", "worker-0", respawns=True, exact=False),
        Subject("ps", "ps", "ps-0"),
        Subject("chief", "ps", "chief-0", trains=True),
        Subject("local", "local", "chief-0", trains=True),
        Subject(
            *("session-worker", "session", "worker-0"),
            trains=True,
            respawns=True,
            exact=False,
            app="counted_session.py",
        ),
        Subject(
            *("session-chief", "session", "chief-0"),
            trains=True,
            exact=False,
            app="counted_session.py",
        ),
        # The other worker must not be through before the loss is noticed: more rows.
        Subject("host", "ps", "worker-0/host", exact=False, rows=12000, step=30),
        Subject(
            *("executor", "ps", "worker-0/executor"),
            exact=False,
            master="local-cluster[2,2,2048]",
            rows=12000,
            step=30,
        ),
        Subject("rank", "ring", "worker-1", trains=True, batches=2),
        Subject("rank-0", "ring", "worker-0", trains=True, batches=2),
        Subject("rank-host", "ring", "worker-1/host", batches=2),
        Subject(
            *("rank-executor", "ring", "worker-1/executor"),
            master="local-cluster[2,1,1024]",
            batches=2,
        ),
        # A checkpoint must have been saved: no sooner.
        Subject("driver", "ps", "driver", step=120),
        Subject("zookeeper", "ps", "zookeeper"),
    )
}

PROCESSES = ("worker", "ps", "chief", "local", "rank", "rank-0", "session-worker", "session-chief")
EXECUTORS = ("executor", "rank-executor")


@dataclass(frozen=True)
class Cell:
    """One fault of one subject."""

    subject: Subject
    action: str
    point: str

    @property
    def name(self) -> str:
        return f"{self.subject.name}-{self.action}-{self.point}"

    @property
    def fault(self) -> str:
        amount = {"exit": "=3", "cut": f"={CUT_S}"}.get(self.action, "")
        point = f"step={self.subject.step}" if self.point == "step" else self.point
        # It is a machine's network that is cut.
        host = "/host" if self.action == "cut" and self.subject.name in PROCESSES else ""
        return f"{self.action}{amount}:{self.subject.target}{host}@{point}"

    @property
    def left_out(self) -> str | None:
        """Why this combination is not run; None when it is."""
        subject, action, point = self.subject, self.action, self.point
        if subject.name not in PROCESSES:
            if action in ("exit", "expire"):
                return "only a role has a training process that can exit and a session of its own"
            if action in ("stop", "cut") and point != "step":
                return "as at step: nothing depends on when it fell silent"
            if action == "cut" and subject.name == "host":
                return "this is what happens to a worker that is cut off"
            if action == "cut" and subject.name == "driver":
                return "as a cut of zookeeper: the driver's machine has the embedded server"
        if action == "exit":
            if point == "register":
                return "a process that waits for its role cannot be told to exit"
            if point in ("checkpoint", "shutdown"):
                return "as kill: the host sees the same end of the same process"
            if point == "feed" and not subject.trains:
                return "as kill: a server runs no code of the user's, whatever its exit code"
        if action == "expire" and point == "checkpoint":
            return "as expire at step: a checkpoint does not touch ZooKeeper"
        return None

    @property
    def code(self) -> ExitCode:
        """The exit code that the run is to end with."""
        subject, action, point = self.subject, self.action, self.point
        if subject.name == "driver":
            return ExitCode.TIMEOUT if action == "stop" else ExitCode.INFRASTRUCTURE
        if subject.name == "zookeeper":
            return ExitCode.OK if point == "shutdown" else ExitCode.INFRASTRUCTURE
        if action == "exit" and point == "feed":
            return ExitCode.USER_CODE
        return ExitCode.OK

    @property
    def reactions(self) -> tuple[str, ...]:
        """What answers the fault, as the run's record calls it."""
        if self.code != ExitCode.OK or self.subject.name == "zookeeper":
            return ()
        if self.point == "register":
            if self.subject.arch == "ring" and self.subject.name not in PROCESSES:
                # The barrier stage is lost whole, before the first generation as after it.
                return GENERATION
            # Another process, or Spark's next attempt, takes the place; nobody had counted on it.
            return ()
        if self.point == "shutdown":
            # Who trains is missed until its outcome is known; a server no longer is.
            return GENERATION if self.action == "expire" and self.subject.trains else ()
        if self.subject.name in EXECUTORS and self.action == "stop":
            # It fed the roles, which train on without it; its job is cancelled at the end.
            return ()
        in_place = self.subject.respawns and self.action not in ("expire", "cut")
        return RESPAWN if in_place else GENERATION

    @property
    def may_be_answered(self) -> bool:
        """Whether a generation is as right as none.

        A role host outlives its JVM by a moment, may register in it, and is then missed. One that
        is cut off as it tells of its end does not know whether it was heard. And a gang is lost
        whole: with the host go others that may not have told of their ends.
        """
        subject, point = self.subject, self.point
        executor = subject.name == "executor" and point == "register"
        gang = subject.name in ("rank-host", "rank-executor") and point == "shutdown"
        return executor or gang or (self.action == "cut" and point == "shutdown")


ALL = [Cell(s, action, point) for s in SUBJECTS.values() for action in ACTIONS for point in POINTS]
CELLS = [cell for cell in ALL if cell.left_out is None]

FAST = frozenset(
    {
        "worker-stop-step",
        "ps-kill-step",
        "executor-kill-step",
        "rank-executor-kill-step",
    }
)
"""These run with the ordinary tests as well, just as they are: for Spark's part and TensorFlow's.

The driver's and the hosts' part in every fault of a process, `tests/scenes` plays.
"""

_IN_SESSION = ("rank-stop-step",)
IN_SESSION = [cell for cell in CELLS if cell.name in _IN_SESSION]
"""With the ordinary tests these run on a session that they share."""
