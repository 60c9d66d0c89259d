"""Checkpoints: complete or absent, wherever they are kept."""
