"""Try a job against faults on one machine, with real processes; see docs/fault-drills.md."""

from __future__ import annotations

from tfos.testing.cluster import DrillCluster
from tfos.testing.drill_run import CausedFault, DrillIncident, DrillRun

__all__ = ["CausedFault", "DrillCluster", "DrillIncident", "DrillRun"]
