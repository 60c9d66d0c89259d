"""A training process: its start, output, control channel and end, and what ties it to its host."""
