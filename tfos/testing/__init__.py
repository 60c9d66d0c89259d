"""Test a job on one machine: in the test's own process, on a shared cluster, against faults.

See docs/testing.md and docs/fault-drills.md.
"""

from __future__ import annotations

from tfos.testing.cluster import DrillCluster
from tfos.testing.drill_run import CausedFault, DrillIncident, DrillRun
from tfos.testing.local_run import run_local
from tfos.testing.shared_cluster import SharedCluster

__all__ = [
    "CausedFault",
    "DrillCluster",
    "DrillIncident",
    "DrillRun",
    "SharedCluster",
    "run_local",
]
