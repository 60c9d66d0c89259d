"""Run a real YARN and HDFS on this machine: for tests of jobs, and to try a cluster by hand."""

from __future__ import annotations

from tfos.testing.yarn.cluster import YarnCluster

__all__ = ["YarnCluster"]
