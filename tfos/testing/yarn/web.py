"""Ask the servers of a cluster, by their web services, what they hold."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final

__all__ = ["ask", "file_system_ready", "nodes_ready"]

_WITHIN_S: Final = 5.0
# These servers are on this machine: a proxy of the environment does not lead to them.
_DIRECTLY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str) -> Any:
    """Return the JSON document at an address; blocks for 5 s at most.

    Raises
    ------
    OSError
        If nothing answers, or not with success.
    ValueError
        If the answer is no JSON.
    """
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    with _DIRECTLY.open(request, timeout=_WITHIN_S) as answer:
        return json.load(answer)


def file_system_ready(name_node: str) -> bool:
    """Say whether a NameNode, by the address of its web application, can store blocks."""
    try:
        beans = ask(f"{name_node}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState")["beans"]
    except (OSError, ValueError):
        return False
    return any(bean["FSState"] == "Operational" and bean["NumLiveDataNodes"] > 0 for bean in beans)


def nodes_ready(manager: str, count: int) -> bool:
    """Say whether a ResourceManager, by the address of its web application, has so many nodes."""
    try:
        metrics = ask(f"{manager}/ws/v1/cluster/metrics")["clusterMetrics"]
    except (OSError, ValueError):
        return False
    return bool(metrics["activeNodes"] >= count)
