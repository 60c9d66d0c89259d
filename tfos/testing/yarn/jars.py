"""Find the servers' jars: Maven fetches them once, PySpark has the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tfos.errors import LaunchError
from tfos.files.cache import cache_directory, locked
from tfos.launcher.submit.prerequisites import find_spark_home

__all__ = ["class_path", "default_cache"]

HADOOP: Final = "3.5.0"
_POM: Final = Path(__file__).with_name("pom.xml")
_OF_SPARK: Final = (
    "hadoop-client-api",
    "hadoop-client-runtime",
    "slf4j-api",
    "log4j-",
    "jcl-over-slf4j",
    "jsr305",
    "snappy-java",
)
_FETCH_WITHIN_S: Final = 600.0


def default_cache() -> Path:
    """Return where fetched jars are kept: ``$XDG_CACHE_HOME/tfos/hadoop-3.5.0``."""
    return cache_directory(os.environ, f"hadoop-{HADOOP}")


def class_path(cache: Path) -> str:
    """Return the class path of every server; fetches 65 MB into `cache` where it is missing.

    Blocks for that: seconds to minutes, 10 minutes at most.

    Raises
    ------
    LaunchError
        If Maven is missing or fails.
    ConfigError
        If PySpark is missing.
    """
    if not cache.is_dir():
        _fetch(cache)
    of_spark = [
        jar
        for jar in sorted((find_spark_home() / "jars").glob("*.jar"))
        if jar.name.startswith(_OF_SPARK)
    ]
    return os.pathsep.join(map(str, [*sorted(cache.glob("*.jar")), *of_spark]))


def _fetch(cache: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise LaunchError(
            "mvn is missing: it fetches the jars of YARN and HDFS; install Maven (Debian and "
            f"Ubuntu: apt install maven), or copy them into {cache}"
        )
    with locked(
        cache.with_name(f"{cache.name}.fetching"),
        lambda: None,
        error=LaunchError,
        instead="name another one by XDG_CACHE_HOME",
    ) as work:
        if cache.is_dir():
            return  # the process that was waited for has fetched them
        target = work / "jars"
        command = [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        try:
            subprocess.run(
                command,
                check=True,
                timeout=_FETCH_WITHIN_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except subprocess.SubprocessError as error:
            said = str(getattr(error, "stdout", None) or "")[-2000:]
            message = f"the jars of YARN and HDFS cannot be fetched: {error}\n{said}"
            raise LaunchError(message) from error
        # By rename: what is there is whole.
        target.rename(cache)
