"""The training process: Job.train, its context, feed and checkpoints."""
