"""Turn ``--env`` into a Python environment that Spark's containers have.

`specification` reads the option, `properties` says it to Spark. Between them `packing` makes one
archive of an environment (`inspection` looks, `interpreter` and `contents` collect, `archive`
writes, `tfos.files.cache` keeps) and `upload` puts it where the cluster reads it. `versions`
says what two hosts have and what of it does not fit. Nothing here imports what the environment
holds.
"""
