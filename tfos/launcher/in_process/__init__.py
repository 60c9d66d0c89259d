"""A run in one process, for a debugger and for unit tests."""
