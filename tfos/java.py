"""Find Java as Spark finds its own, and start small JVMs cheaply."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from typing import Final

from tfos.errors import ConfigError, ExitCode, TfosError

__all__ = ["QUICK_JVM", "find_java", "jvm_refusal"]

QUICK_JVM: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""Options of a JVM that lives for seconds or does little: the optimizing compiler never pays."""


_NO_MEMORY: Final = re.compile(
    r"Could not reserve enough space|Cannot allocate memory|insufficient memory for the Java"
    r"|Could not allocate|OutOfMemoryError: (?!unable to create)"
)
_NO_THREAD: Final = re.compile(
    r"unable to create (?:new )?native thread|pthread_create failed|Cannot create GC thread"
    r"|fork: (?:retry: )?Resource temporarily unavailable"
)
_NO_SPACE: Final = re.compile(r"No space left on device|Disk quota exceeded")
_BAD_OPTION: Final = re.compile(r"Too small maximum heap|Invalid (?:maximum|initial) heap size")


def jvm_refusal(who: str, said: str) -> TfosError | None:
    """Return why the machine did not let a JVM run, by its own words. Pure.

    Parameters
    ----------
    who
        Which JVM: the beginning of the message.
    said
        What it wrote.

    Returns
    -------
    TfosError or None
        None where its words tell of no lack of memory, threads or disk space, nor of an option
        that it does not take.
    """
    for pattern, exit_code, advice in (
        (_NO_THREAD, ExitCode.CONFIG, "raise the limit of processes and threads (`ulimit -u`)"),
        (
            _NO_MEMORY,
            ExitCode.RESOURCES,
            "free memory on this machine, or raise the limit of this shell (`ulimit -v`) or "
            "container",
        ),
        (_NO_SPACE, ExitCode.INFRASTRUCTURE, "make room, or set TMPDIR to another disk"),
        (
            _BAD_OPTION,
            ExitCode.CONFIG,
            "correct JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS or Spark's extraJavaOptions",
        ),
    ):
        line = next((line.strip() for line in said.splitlines() if pattern.search(line)), None)
        if line is not None:
            return TfosError(f"{who} does not run: {line[:300]}; {advice}", exit_code=exit_code)
    return None


def find_java(what: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the absolute path of ``$JAVA_HOME/bin/java``, else of the ``java`` on ``PATH``.

    Parameters
    ----------
    what
        Who needs it, and what would do instead: the end of the error's message.

    Raises
    ------
    ConfigError
        If there is none.
    """
    home = environ.get("JAVA_HOME")
    path = os.path.join(home, "bin") if home else environ.get("PATH")
    java = shutil.which("java", path=path)
    if java is None:
        where = f"JAVA_HOME is {home}, without bin/java" if home else "none is on PATH"
        raise ConfigError(f"Java is missing ({where}): {what}")
    return os.path.abspath(java)
