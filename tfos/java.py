"""Find Java as Spark finds its own, and start small JVMs cheaply."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Final

from tfos.errors import ConfigError

__all__ = ["QUICK_JVM", "find_java"]

QUICK_JVM: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""Options of a JVM that lives for seconds or does little: the optimizing compiler never pays."""


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
