"""Write the configuration of a YARN and HDFS whose every server listens on loopback. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["LOG4J", "Ports", "common_files", "node_manager_files", "site_file"]

Properties = Mapping[str, object]

LOOPBACK = "127.0.0.1"
QUEUES = ("default", "night")
GPUS = 4
"""How many each NodeManager says it has: YARN only counts them, and isolates none."""
_PASSED_ON = ("JAVA_HOME", "JAVA_TOOL_OPTIONS", "PATH", "LANG", "TZ")

LOG4J = """\
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.target=SYSTEM_ERR
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{2}: %m%n
"""


@dataclass(frozen=True)
class Ports:
    """A port of its own for everything that listens.

    Parameters
    ----------
    name_node, name_node_http, data_node, data_node_http, data_node_ipc
        HDFS.
    manager, scheduler, tracker, admin, manager_http
        The ResourceManager.
    node_managers
        For each NodeManager: address, localizer, web application, collector.
    """

    name_node: int
    name_node_http: int
    data_node: int
    data_node_http: int
    data_node_ipc: int
    manager: int
    scheduler: int
    tracker: int
    admin: int
    manager_http: int
    node_managers: tuple[tuple[int, int, int, int], ...]

    @staticmethod
    def needed(node_managers: int) -> int:
        """Return how many ports a cluster takes."""
        return 10 + 4 * node_managers

    @classmethod
    def of(cls, ports: Sequence[int]) -> Ports:
        """Deal out as many as are `needed`."""
        rest = ports[10:]
        each = tuple(
            (rest[i], rest[i + 1], rest[i + 2], rest[i + 3]) for i in range(0, len(rest), 4)
        )
        a, b, c, d, e, f, g, h, i, j = ports[:10]
        return cls(a, b, c, d, e, f, g, h, i, j, each)


def site_file(properties: Properties) -> str:
    """Return the text of a ``*-site.xml``."""
    lines = [
        f"  <property><name>{escape(name)}</name><value>{escape(_text(value))}</value></property>"
        for name, value in properties.items()
    ]
    return "\n".join(['<?xml version="1.0"?>', "<configuration>", *lines, "</configuration>", ""])


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def common_files(
    directory: str, ports: Ports, user: str, memory_mb: int, log_aggregation: bool
) -> dict[str, Properties]:
    """Return what clients and every server read, by file name.

    Parameters
    ----------
    directory
        Holds the servers' data.
    user
        Who the NameNode's web application works as.
    memory_mb
        Memory of each NodeManager, and of the largest container.
    log_aggregation
        Whether finished applications' logs go to HDFS; otherwise NodeManagers keep them.
    """
    core = {
        "fs.defaultFS": f"hdfs://{LOOPBACK}:{ports.name_node}",
        "hadoop.tmp.dir": f"{directory}/tmp",
        "hadoop.http.staticuser.user": user,
    }
    hdfs = {
        "dfs.replication": 1,
        "dfs.namenode.rpc-address": f"{LOOPBACK}:{ports.name_node}",
        "dfs.namenode.http-address": f"{LOOPBACK}:{ports.name_node_http}",
        "dfs.namenode.secondary.http-address": f"{LOOPBACK}:0",
        "dfs.namenode.name.dir": f"file://{directory}/name",
        "dfs.namenode.safemode.extension": 0,
        # Nothing need outlive the machine: no fsync.
        "dfs.namenode.edits.noeditlogchannelflush": True,
        # A file's end does not wait for the DataNode's report of its last block.
        "dfs.namenode.file.close.num-committed-allowed": 1,
        "dfs.datanode.data.dir": f"file://{directory}/data",
        "dfs.datanode.address": f"{LOOPBACK}:{ports.data_node}",
        "dfs.datanode.http.address": f"{LOOPBACK}:{ports.data_node_http}",
        "dfs.datanode.ipc.address": f"{LOOPBACK}:{ports.data_node_ipc}",
        "dfs.datanode.hostname": LOOPBACK,
    }
    manager = "yarn.resourcemanager"
    yarn = {
        f"{manager}.hostname": LOOPBACK,
        f"{manager}.address": f"{LOOPBACK}:{ports.manager}",
        f"{manager}.scheduler.address": f"{LOOPBACK}:{ports.scheduler}",
        f"{manager}.resource-tracker.address": f"{LOOPBACK}:{ports.tracker}",
        f"{manager}.admin.address": f"{LOOPBACK}:{ports.admin}",
        f"{manager}.webapp.address": f"{LOOPBACK}:{ports.manager_http}",
        f"{manager}.scheduler.class": "org.apache.hadoop.yarn.server.resourcemanager.scheduler"
        ".capacity.CapacityScheduler",
        f"{manager}.am.max-attempts": 2,
        f"{manager}.nodemanagers.heartbeat-interval-ms": 250,
        # Longer than a busy machine has a healthy one wait.
        "yarn.nm.liveness-monitor.expiry-interval-ms": 30_000,
        "yarn.cluster.max-application-priority": 10,
        "yarn.scheduler.minimum-allocation-mb": 128,
        "yarn.scheduler.maximum-allocation-mb": memory_mb,
        "yarn.log-aggregation-enable": log_aggregation,
        "yarn.nodemanager.remote-app-log-dir": "/app-logs",
    }
    root = "yarn.scheduler.capacity.root"
    capacity: dict[str, object] = {
        "yarn.scheduler.capacity.maximum-am-resource-percent": 0.6,
        # By default only memory is counted.
        "yarn.scheduler.capacity.resource-calculator": "org.apache.hadoop.yarn.util.resource"
        ".DominantResourceCalculator",
        "yarn.scheduler.capacity.node-locality-delay": -1,
        f"{root}.queues": ",".join(QUEUES),
    }
    for queue, share in zip(QUEUES, (70, 30), strict=True):
        capacity |= {
            f"{root}.{queue}.capacity": share,
            f"{root}.{queue}.maximum-capacity": 100,
            f"{root}.{queue}.user-limit-factor": 10,
            f"{root}.{queue}.state": "RUNNING",
        }
    return {
        "core-site.xml": core,
        "hdfs-site.xml": hdfs,
        "yarn-site.xml": yarn,
        "capacity-scheduler.xml": capacity,
        "resource-types.xml": {"yarn.resource-types": "yarn.io/gpu"},
    }


def node_manager_files(
    common: Mapping[str, Properties],
    directory: str,
    ports: Ports,
    index: int,
    memory_mb: int,
    cores: int,
    pass_on: Sequence[str],
) -> dict[str, Properties]:
    """Return what the NodeManager of an index reads: the common files, and its own addresses.

    Parameters
    ----------
    pass_on
        Names of environment variables that containers take from the NodeManager.
    """
    address, localizer, web, collector = ports.node_managers[index]
    prefix = "yarn.nodemanager"
    own = {
        f"{prefix}.hostname": LOOPBACK,
        f"{prefix}.address": f"{LOOPBACK}:{address}",
        f"{prefix}.localizer.address": f"{LOOPBACK}:{localizer}",
        f"{prefix}.webapp.address": f"{LOOPBACK}:{web}",
        f"{prefix}.collector-service.address": f"{LOOPBACK}:{collector}",
        f"{prefix}.local-dirs": f"{directory}/node-{index}/local",
        f"{prefix}.log-dirs": f"{directory}/node-{index}/logs",
        f"{prefix}.resource.memory-mb": memory_mb,
        f"{prefix}.resource.cpu-vcores": cores,
        f"{prefix}.env-whitelist": ",".join([*_PASSED_ON, *pass_on]),
        # A container over its memory is killed, as on most clusters; by default nothing does it.
        f"{prefix}.pmem-check-enabled": True,
        f"{prefix}.resource.memory.enforced": False,
        f"{prefix}.vmem-check-enabled": False,
        f"{prefix}.container-monitor.interval-ms": 1000,
        f"{prefix}.disk-health-checker.max-disk-utilization-per-disk-percentage": "99.9",
        # Of finished containers the directories go, and, without aggregation, the logs stay.
        f"{prefix}.delete.debug-delay-sec": 0,
        f"{prefix}.log.retain-seconds": 10800,
    }
    return {
        **common,
        "yarn-site.xml": {**common["yarn-site.xml"], **own},
        "node-resources.xml": {f"{prefix}.resource-type.yarn.io/gpu": GPUS},
    }
