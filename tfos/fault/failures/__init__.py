"""Failures: what failed and why, and what answers it."""
