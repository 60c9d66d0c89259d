"""Adapt each architecture: its roles, its environment, how `train` runs."""
