"""Run a real ZooKeeper server, from the jars PySpark brings, beside the driver."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import psutil

from tfos.errors import LaunchError
from tfos.java import QUICK_JVM, find_java, jvm_refusal
from tfos.registry import lifeline
from tfos.registry.identity import RunIdentity

__all__ = ["SETTINGS", "EmbeddedZooKeeper", "end_server", "start_server"]

_MAIN: Final = "org.apache.zookeeper.server.ZooKeeperServerMain"
# The server's own needs; with all of PySpark's jars it starts a third slower.
_JARS: Final = ("zookeeper", "slf4j-api", "log4j", "metrics-core", "netty", "snappy")
_JVM: Final = (
    *QUICK_JVM,
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Xms16m",
    "-Xmx512m",
    "-Dlog4j2.disable.jmx=true",
    "-Dzookeeper.jmx.log4j.disable=true",
)
_NEEDS_JAVA: Final = (
    "Spark and the embedded ZooKeeper need Java 17 or later; install it and set JAVA_HOME, or use "
    "a running ZooKeeper (--zookeeper)"
)
_PORT_TRIES: Final = 5
_STOP_BOUND_S: Final = 10.0
_LEAST_FREE_BYTES: Final = 1 << 20
_POLL_S: Final = 0.02

# forceSync: the log need not outlive this host, for the driver does not either.
SETTINGS: Final = """\
tickTime=500
minSessionTimeout=1000
maxSessionTimeout=120000
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
preAllocSize=4096
forceSync=no
"""
"""The lines of a server's configuration that do not depend on where it runs."""

# Netty closes a connection whose handshake takes longer than 10 s.
_TLS: Final = """\
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
ssl.clientAuth=need
ssl.protocol=TLSv1.3
ssl.enabledProtocols=TLSv1.3
"""
# A line for each connection that fails to authenticate would fill the disk in a flood of them.
_LOGGING: Final = """\
rootLogger.level=error
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %t %p %m%n%ex
filter.burst.type=BurstFilter
filter.burst.level=error
filter.burst.rate=1
filter.burst.maxBurst=100
"""


class EmbeddedZooKeeper:
    """A ZooKeeper server on this host, for as long as this process lives. A context manager.

    It listens on `host` only, on a port found free, keeps its data in a private directory of its
    own, and is killed, its directory removed, when this process ends, even by SIGKILL.
    Not thread-safe.

    Parameters
    ----------
    host
        Name or address of this host to listen on: one that every role host can reach.
    identity
        Only clients that have it get further than the TLS handshake. With None there is no TLS, and
        anyone who reaches the port may connect, take over any session and end it: for tests, where
        it stands for an ensemble elsewhere.
    start_timeout_s
        Time for the server to answer; it takes about 1 s on an idle machine.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        identity: RunIdentity | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._host = host
        self._identity = identity
        self._start_timeout_s = start_timeout_s
        self._port = 0
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EmbeddedZooKeeper:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """``host:port`` to connect to; it stays the same across `restart`."""
        if not self._port:
            raise LaunchError("the embedded ZooKeeper was not started")
        return f"{self._host}:{self._port}"

    @property
    def identity(self) -> RunIdentity | None:
        """What clients need to connect."""
        return self._identity

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def last_words(self) -> str | None:
        """The last lines of a server that has ended by itself, and what its disk lacks.

        None while it runs.
        """
        if self._directory is None or self.running:
            return None
        lines = self._last_lines()
        if shutil.disk_usage(self._directory).free < _LEAST_FREE_BYTES:
            lines += f"\nNo space left on device: {self._directory.parent}"
        return lines

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        # Our own child only ties the server, its child, to this process's life.
        lifeline = self._process
        children = [] if lifeline is None else psutil.Process(lifeline.pid).children()
        return int(children[0].pid) if children else None

    def start(self) -> None:
        """Start the server and wait until it answers, at most `start_timeout_s`.

        Raises
        ------
        ConfigError
            If Java is missing.
        LaunchError
            If PySpark's jars are missing, `host` is not an address of this host, or the server
            ends or stays silent; carries its last lines.
        """
        if self._directory is not None:
            raise LaunchError("the embedded ZooKeeper is already started")
        self._directory = Path(tempfile.mkdtemp(prefix="tfos-zookeeper-"))
        try:
            for tries_left in reversed(range(_PORT_TRIES)):
                self._port = _free_port(self._host)
                try:
                    self._launch()
                    return
                except _PortTakenError as error:
                    if not tries_left:
                        raise LaunchError(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Kill the server and start it again on its port and data; sessions survive.

        Raises
        ------
        LaunchError
            As `start` does, also when another process has taken the port meanwhile.
        """
        self.halt()
        try:
            self._launch()
        except _PortTakenError as error:
            raise LaunchError(str(error)) from error

    def halt(self) -> None:
        """Kill the server and keep its port number and data, for `restart`. Idempotent."""
        self._end(keep_data=True)

    def stop(self) -> None:
        """Kill the server and remove its data. Idempotent; blocks for 10 s at most."""
        self._end(keep_data=False)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory, self._port = None, 0

    def _end(self, *, keep_data: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_server(process, keep_data=keep_data)

    def _launch(self) -> None:
        assert self._directory is not None
        directory = self._directory
        config = directory / "zoo.cfg"
        config.write_text(f"{SETTINGS}dataDir={directory / 'data'}\n{self._listening(directory)}")
        self._process = start_server(_MAIN, config)
        self._await_ready()

    def _listening(self, directory: Path) -> str:
        """Return the lines of the configuration that say where it listens, and to whom."""
        if self._identity is None:
            return f"clientPort={self._port}\nclientPortAddress={self._host}\n"
        keys = directory / "identity.pem"
        keys.touch(0o600)
        keys.write_text(self._identity.pem)
        return (
            f"{_TLS}ssl.keyStore.location={keys}\nssl.trustStore.location={keys}\n"
            f"secureClientPort={self._port}\nsecureClientPortAddress={self._host}\n"
        )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        tls = None if self._identity is None else self._identity.client_context()
        while not _serves(self._host, self._port, tls):
            if not self.running:
                self._end(keep_data=True)
                lines = self._last_lines()
                if refusal := jvm_refusal("the embedded ZooKeeper", self.last_words or lines):
                    raise refusal
                kind = _PortTakenError if "Address already in use" in lines else LaunchError
                raise kind(f"the embedded ZooKeeper on {self.address} ended at start:\n{lines}")
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the embedded ZooKeeper on {self.address} did not answer within "
                    f"{self._start_timeout_s:g} s; its last lines:\n{self._last_lines()}"
                )
            time.sleep(_POLL_S)

    def _last_lines(self, count: int = 15) -> str:
        assert self._directory is not None
        text = (self._directory / "server.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-count:]) or "(it wrote nothing)"


class _PortTakenError(LaunchError):
    """Another process took the port between finding it free and binding it."""


def start_server(main: str, config: Path) -> subprocess.Popen[bytes]:
    """Start the Java class `main` on a configuration file; return its guard, for `end_server`.

    When this process ends, the server is killed and the file's directory removed. Its output goes
    to ``server.log`` there, anew at each start. Does not wait until it serves.

    Raises
    ------
    ConfigError
        If Java is missing.
    LaunchError
        If PySpark's jars are missing.
    """
    directory = config.parent
    logging = directory / "log4j2.properties"
    logging.write_text(_LOGGING)
    server = [
        find_java(_NEEDS_JAVA),
        *_JVM,
        f"-Dlog4j2.configurationFile={logging}",
        main,
        str(config),
    ]
    with (directory / "server.log").open("wb") as log:
        # A session of its own: Ctrl-C at the terminal must not take the server before the
        # driver has told the roles to stop.
        return subprocess.Popen(
            lifeline.on_line(str(directory), server),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=directory,
            # By the environment: on the command line it would fill the screen of every `ps`.
            env={**os.environ, "CLASSPATH": _find_jars()},
            start_new_session=True,
        )


def end_server(process: subprocess.Popen[bytes], *, keep_data: bool) -> None:
    """SIGKILL a server that `start_server` started, and remove its directory or keep it.

    Returns once it is gone; blocks for at most 10 s.
    """
    assert process.stdin is not None
    # A broken pipe says that it has ended by itself.
    with process.stdin, suppress(BrokenPipeError):
        process.stdin.write(b"k" if keep_data else b"")
    try:
        process.wait(_STOP_BOUND_S)
    except subprocess.TimeoutExpired:
        # The parent-death signal takes the server along.
        process.kill()
        process.wait()


def _find_jars() -> str:
    """Return the class path: the server's jars among Spark's."""
    places = list(_places_of_jars())
    if not places:
        raise LaunchError("the embedded ZooKeeper needs PySpark's jars: install pyspark")
    for place in places:
        directory = glob.escape(place)
        jars = [jar for name in _JARS for jar in sorted(glob.glob(f"{directory}/{name}*.jar"))]
        if any(os.path.basename(jar).startswith("zookeeper") for jar in jars):
            return os.pathsep.join(jars)
    raise LaunchError(
        f"{places[0]} holds no ZooKeeper: check SPARK_HOME, or use a running one (--zookeeper)"
    )


def _places_of_jars() -> Iterator[str]:
    home = os.environ.get("SPARK_HOME")
    if home:
        yield os.path.join(home, "jars")
    else:
        spec = importlib.util.find_spec("pyspark")
        if spec is not None and spec.origin is not None:
            yield os.path.join(os.path.dirname(spec.origin), "jars")
    # In a container of YARN, PySpark is a zip file and Spark's jars lie where its JVM finds them.
    for entry in os.environ.get("CLASSPATH", "").split(os.pathsep):
        if entry.endswith("/*"):
            yield entry.removesuffix("/*")


def _free_port(host: str) -> int:
    try:
        with socket.create_server((host, 0)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise LaunchError(
            f"the embedded ZooKeeper cannot listen on {host}: {error}; it must be this host's own "
            "name or address (spark.driver.host)"
        ) from error


def _serves(host: str, port: int, tls: ssl.SSLContext | None) -> bool:
    """Ask whether a ZooKeeper server answers."""
    try:
        with ExitStack() as open_links:
            link = open_links.enter_context(socket.create_connection((host, port), timeout=1.0))
            if tls is not None:
                link = open_links.enter_context(tls.wrap_socket(link))
            link.sendall(b"srvr")
            return link.recv(64).startswith(b"Zookeeper version")
    except OSError:
        return False
