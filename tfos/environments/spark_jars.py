"""Make one archive of Spark's own jars, which YARN's containers otherwise get anew each time."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from tfos.environments.progress import Progress, percent_of
from tfos.errors import InfrastructureError
from tfos.files.cache import cache_directory, locked
from tfos.files.private import refuse_foreign

__all__ = ["pack_spark_jars"]

_INSTEAD = "let XDG_CACHE_HOME name another directory"


def pack_spark_jars(spark_home: Path, progress: Progress, *, cache: Path | None = None) -> Path:
    """Return a zip file of ``SPARK_HOME/jars``, written now (460 MB, seconds) or before.

    Its name stands for what is in it, for ``spark.yarn.archive``.

    Parameters
    ----------
    spark_home
        The Spark installation.
    progress
        Told how much is packed.
    cache
        Where it is kept; by default ``$XDG_CACHE_HOME/tfos/spark-jars``.

    Raises
    ------
    InfrastructureError
        If it cannot be written, or belongs to another user.
    """
    jars = sorted((spark_home / "jars").glob("*.jar"))
    directory = cache or cache_directory(os.environ, "spark-jars")
    refuse_foreign(directory, instead=_INSTEAD, error=InfrastructureError)
    target = directory / f"spark-jars-{_digest(jars)}.zip"
    if target.exists():
        return target
    with locked(
        directory,
        lambda: progress.say("another process packs Spark's jars: waiting for it"),
        error=InfrastructureError,
        instead=_INSTEAD,
    ) as work:
        if not target.exists():
            progress.say("packing Spark's jars, once")
            try:
                _write(jars, work / target.name, progress)
            except OSError as error:
                raise InfrastructureError(
                    f"Spark's jars cannot be packed into {directory}: {error}; {_INSTEAD}, or set "
                    "spark.yarn.archive"
                ) from error
            for other in directory.glob("spark-jars-*.zip"):
                other.unlink()
            (work / target.name).rename(target)
    return target


def _digest(jars: list[Path]) -> str:
    listed = "\n".join(f"{jar.name} {jar.stat().st_size}" for jar in jars)
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _write(jars: list[Path], target: Path, progress: Progress) -> None:
    advance = percent_of(sum(jar.stat().st_size for jar in jars), progress)
    # Jars are compressed already.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for jar in jars:
            archive.write(jar, jar.name)
            advance(jar.stat().st_size)
