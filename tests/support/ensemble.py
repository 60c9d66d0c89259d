"""Run an ensemble of real ZooKeeper servers on loopback, to be killed one by one."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from support.waiting import wait_for
from tfos.registry.embedded import SETTINGS, end_server, start_server
from tfos.testing.ports import free_ports

__all__ = ["Ensemble"]

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_HOST = "127.0.0.1"
_START_BOUND_S = 60.0


class Ensemble:
    """ZooKeeper servers that elect a leader among them. A context manager.

    Entering blocks until all of them serve. They are killed when the context is left, and when this
    process ends, even by SIGKILL.

    Parameters
    ----------
    count
        How many servers; it serves while more than half of them live.
    directory
        An existing directory for their data; one below it for each is removed at the end.
    """

    def __init__(self, count: int, directory: Path) -> None:
        self._directories = [directory / f"server-{number + 1}" for number in range(count)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        ports = free_ports(3 * count, _HOST)
        self._ports, self._peers = ports[:count], ports[count:]

    def __enter__(self) -> Ensemble:
        try:
            for index in range(len(self._ports)):
                self._start(index)
            for index in range(len(self._ports)):
                self._await_serving(index)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for index in range(len(self._ports)):
            self._end(index, keep_data=False)

    @property
    def hosts(self) -> str:
        """``host:port,host:port``, one for each server, dead ones too."""
        return ",".join(f"{_HOST}:{port}" for port in self._ports)

    def index_of(self, port: int) -> int:
        """Return the index of the server that clients reach at `port`."""
        return self._ports.index(port)

    def leader(self) -> int:
        """Return the index of the server that leads now; raises LookupError for none."""
        for index in range(len(self._ports)):
            if "Mode: leader" in self._ask(index):
                return index
        raise LookupError("no server leads now")

    def kill(self, index: int) -> None:
        """SIGKILL a server; its data stays. Idempotent; returns once it is gone."""
        self._end(index, keep_data=True)

    def restart(self, index: int) -> None:
        """Start a killed server again on its ports and data; blocks until it serves."""
        self._start(index)
        self._await_serving(index)

    def _start(self, index: int) -> None:
        directory = self._directories[index]
        data = directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(str(index + 1))
        config = directory / "zoo.cfg"
        servers = (
            f"server.{number + 1}={_HOST}:{self._peers[2 * number]}:{self._peers[2 * number + 1]}\n"
            for number in range(len(self._ports))
        )
        config.write_text(
            f"{SETTINGS}initLimit=20\nsyncLimit=10\ndataDir={data}\n"
            f"clientPort={self._ports[index]}\nclientPortAddress={_HOST}\n{''.join(servers)}"
        )
        self._processes[index] = start_server(_MAIN, config)

    def _end(self, index: int, *, keep_data: bool) -> None:
        process, self._processes[index] = self._processes[index], None
        if process is not None:
            end_server(process, keep_data=keep_data)

    def _await_serving(self, index: int) -> None:
        log = self._directories[index] / "server.log"

        def serves() -> bool:
            ended = self._processes[index].poll() is not None
            assert not ended, f"server {index} ended:\n{log.read_text(errors='replace')[-3000:]}"
            return "Mode:" in self._ask(index)

        wait_for(serves, _START_BOUND_S)

    def _ask(self, index: int) -> str:
        """Return what a server says of itself; empty when it does not answer."""
        answer = b""
        address = (_HOST, self._ports[index])
        with suppress(OSError), socket.create_connection(address, timeout=2.0) as link:
            link.sendall(b"srvr")
            while part := link.recv(4096):
                answer += part
        return answer.decode(errors="replace")
