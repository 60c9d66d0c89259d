"""The driver: pre_train, then a run from its first role to its record."""
