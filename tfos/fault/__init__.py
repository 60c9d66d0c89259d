"""Watch processes, describe their failures, decide what follows, keep checkpoints."""
