"""Start, watch and end the servers of a YARN and an HDFS, each a JVM of its own on loopback."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tfos.errors import LaunchError
from tfos.java import QUICK_JVM, find_java
from tfos.registry import lifeline
from tfos.testing.leftovers import processes_marked
from tfos.testing.ports import free_ports
from tfos.testing.yarn import settings
from tfos.testing.yarn.jars import class_path, default_cache
from tfos.testing.yarn.web import ask, file_system_ready, nodes_ready

__all__ = ["ClusterRecord", "YarnCluster"]

MARK: Final = "TFOS_TEST_YARN"
"""Environment variable of every server and container."""

_MAIN: Final = {
    "name-node": "org.apache.hadoop.hdfs.server.namenode.NameNode",
    "data-node": "org.apache.hadoop.hdfs.server.datanode.DataNode",
    "manager": "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
    "node": "org.apache.hadoop.yarn.server.nodemanager.NodeManager",
}
_JVM: Final = (
    *QUICK_JVM,
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xmx256m",
    "-Djava.net.preferIPv4Stack=true",
    "-Dlog4j2.disable.jmx=true",
)
_START_WITHIN_S: Final = 120.0
_END_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class ClusterRecord:
    """What is known of a started cluster; kept as ``cluster.json`` in its directory.

    Parameters
    ----------
    mark
        Value of the environment variable by which its processes are found.
    configuration
        The directory for ``HADOOP_CONF_DIR``.
    hdfs
        URL of the file system.
    name_node, manager
        Addresses of the web applications of NameNode and ResourceManager.
    node_managers
        Those of the NodeManagers, by index.
    """

    mark: str
    configuration: str
    hdfs: str
    name_node: str
    manager: str
    node_managers: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> ClusterRecord:
        """Read what `YarnCluster` wrote; raises LaunchError when no cluster was started there."""
        try:
            document = json.loads((directory / "cluster.json").read_text())
        except (OSError, ValueError) as error:
            raise LaunchError(f"no cluster was started in {directory}") from error
        return cls(**{**document, "node_managers": tuple(document["node_managers"])})

    def write(self, directory: Path) -> None:
        """Keep it in the cluster's directory."""
        (directory / "cluster.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    def processes(self) -> list[psutil.Process]:
        """Return every live server and container of the cluster."""
        return processes_marked(MARK, self.mark)

    def kill(self) -> None:
        """SIGKILL all of them and wait until they are gone, at most 10 s.

        NodeManagers ignore SIGTERM for a while once their ResourceManager is gone.
        """
        deadline = time.monotonic() + _END_WITHIN_S
        while (processes := self.processes()) and time.monotonic() < deadline:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=1.0)


class YarnCluster:
    """A ResourceManager, NodeManagers, a NameNode and a DataNode. A context manager, one thread.

    Ready in 10 to 15 s; takes about 1 GB. Leaving it kills every server and container; so does the
    end of this process, however it ends, unless the cluster is detached.

    Parameters
    ----------
    directory
        An existing, empty directory for data, logs and configuration.
    node_managers
        How many NodeManagers.
    memory_mb, cores
        What each has to give.
    log_aggregation
        Whether logs of finished applications go to HDFS.
    node_prefix
        What to put before the command of a NodeManager, and so of its containers: a program that
        runs the rest of its command line, such as ``unshare``.
    jars
        Where the servers' jars are kept; `default_cache` when None.
    detached
        Let it outlive this process; `ClusterRecord.kill` ends it.

    Raises
    ------
    LaunchError
        On entering, if a server cannot be started, ends, or is not ready within 120 s; carries its
        last lines.
    """

    def __init__(
        self,
        directory: Path,
        *,
        node_managers: int = 2,
        memory_mb: int = 6144,
        cores: int = 8,
        log_aggregation: bool = True,
        node_prefix: Sequence[str] = (),
        jars: Path | None = None,
        detached: bool = False,
    ) -> None:
        self._directory = directory.resolve()
        self._count = node_managers
        self._memory_mb = memory_mb
        self._cores = cores
        self._log_aggregation = log_aggregation
        self._node_prefix = node_prefix
        self._jars = jars or default_cache()
        self._detached = detached
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._class_path = ""
        self._record: ClusterRecord | None = None

    def __enter__(self) -> YarnCluster:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def record(self) -> ClusterRecord:
        """Where everything is; raises LaunchError before the start."""
        if self._record is None:
            raise LaunchError("the cluster was not started")
        return self._record

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables by which Spark and Hadoop's clients find the cluster."""
        return {"HADOOP_CONF_DIR": self.record.configuration, "HADOOP_USER_NAME": getpass.getuser()}

    def start(self) -> None:
        """Start the servers and wait until they serve, at most 4 minutes; raises as the class."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill every server and container. Idempotent; the directory stays."""
        for name in list(self._servers):
            self._end(name)
        if self._record is not None:
            self._record.kill()

    def kill_node_manager(self, index: int) -> None:
        """SIGKILL a NodeManager; its containers live on, as they do on a real cluster."""
        self._end(f"node-{index}")

    def start_node_manager(self, index: int) -> None:
        """Start one again that was killed, and wait until the ResourceManager has all nodes."""
        self._launch(f"node-{index}", "node", f"conf-{index}")
        self._await(lambda: nodes_ready(self.record.manager, self._count), "the NodeManager")

    def containers(self) -> list[Mapping[str, Any]]:
        """Return every running container, as its NodeManager's web service describes it.

        Raises
        ------
        OSError
            If a NodeManager does not answer.
        """
        found: list[Mapping[str, Any]] = []
        for index, address in enumerate(self.record.node_managers):
            if f"node-{index}" in self._servers:
                told = ask(f"{address}/ws/v1/node/containers")["containers"] or {}
                found += told.get("container", [])
        return found

    # -- starting ------------------------------------------------------------------------------

    def _start(self) -> None:
        self._class_path = class_path(self._jars)
        ports = settings.Ports.of(free_ports(settings.Ports.needed(self._count), settings.LOOPBACK))
        self._configure(ports)
        loopback = settings.LOOPBACK
        self._record = ClusterRecord(
            mark=uuid.uuid4().hex,
            configuration=str(self._directory / "conf"),
            hdfs=f"hdfs://{loopback}:{ports.name_node}",
            name_node=f"http://{loopback}:{ports.name_node_http}",
            manager=f"http://{loopback}:{ports.manager_http}",
            node_managers=tuple(f"http://{loopback}:{web}" for _, _, web, _ in ports.node_managers),
        )
        self._record.write(self._directory)
        self._launch("manager", "manager")
        for index in range(self._count):
            self._launch(f"node-{index}", "node", f"conf-{index}")
        self._format()
        self._launch("name-node", "name-node")
        self._launch("data-node", "data-node")
        record = self._record
        self._await(lambda: file_system_ready(record.name_node), "HDFS")
        self._await(lambda: nodes_ready(record.manager, self._count), "YARN")

    def _configure(self, ports: settings.Ports) -> None:
        directory = str(self._directory)
        common = settings.common_files(
            directory, ports, getpass.getuser(), self._memory_mb, self._log_aggregation
        )
        self._write("conf", common)
        for index in range(self._count):
            own = settings.node_manager_files(
                common, directory, ports, index, self._memory_mb, self._cores, [MARK]
            )
            self._write(f"conf-{index}", own)

    def _write(self, name: str, files: Mapping[str, Mapping[str, object]]) -> None:
        directory = self._directory / name
        directory.mkdir()
        for file, properties in files.items():
            (directory / file).write_text(settings.site_file(properties))
        (directory / "log4j2.properties").write_text(settings.LOG4J)

    def _format(self) -> None:
        """Make the NameNode's empty image."""
        arguments = ["-format", "-force", "-nonInteractive"]
        self._launch("format", "name-node", "conf", *arguments)
        try:
            code = self._servers["format"].wait(_START_WITHIN_S)
        except subprocess.TimeoutExpired:
            code = None
        self._end("format")
        if code != 0:
            raise LaunchError(f"HDFS was not formatted:\n{self._last_lines('format')}")

    def _launch(self, name: str, kind: str, conf: str = "conf", *arguments: str) -> None:
        directory, configuration = self._directory, self._directory / conf
        prefix = self._node_prefix if kind == "node" else ()
        java = find_java("YARN and HDFS need Java 17 or later; set JAVA_HOME")
        command = [*prefix, java, *_JVM, _MAIN[kind], *arguments]
        if not self._detached:
            command = lifeline.on_line(str(directory), command)
        kept = {k: v for k, v in os.environ.items() if k not in ("SPARK_HOME", "HADOOP_HOME")}
        with (directory / f"{name}.log").open("ab") as log:
            self._servers[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if self._detached else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                bufsize=0,
                cwd=directory,
                env={
                    **kept,
                    MARK: self.record.mark,
                    "HADOOP_CONF_DIR": str(configuration),
                    "HADOOP_HOME": str(directory),
                    "CLASSPATH": f"{configuration}{os.pathsep}{self._class_path}",
                },
                start_new_session=True,
            )

    def _await(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_WITHIN_S
        while not ready():
            for name, process in self._servers.items():
                if process.poll() is not None:
                    raise LaunchError(f"{name} has ended:\n{self._last_lines(name)}")
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"{what} is not ready after {_START_WITHIN_S:g} s; logs: {self._directory}"
                )
            time.sleep(_POLL_S)

    def _last_lines(self, name: str) -> str:
        text = (self._directory / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-20:]) or "(it wrote nothing)"

    # -- ending --------------------------------------------------------------------------------

    def _end(self, name: str) -> None:
        process = self._servers.pop(name, None)
        if process is None:
            return
        if process.stdin is None:
            process.kill()
        else:
            # The byte ends the server and keeps the directory; see `lifeline`.
            with process.stdin, suppress(BrokenPipeError):
                process.stdin.write(b"k")
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_WITHIN_S)
