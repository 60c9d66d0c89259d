"""The `ring` architecture: Horovod ranks in one Spark barrier stage. All of Horovod is here."""
