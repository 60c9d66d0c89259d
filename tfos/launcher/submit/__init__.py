"""The client: a configuration becomes a started driver, and its exit code."""
