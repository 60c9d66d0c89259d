"""The file that spark-submit starts: it runs the driver, or says what this host's Python lacks.

In the cluster that Python is the hosts' own where no environment is shipped. So nothing but the
standard library is imported before it is known to have the rest, and nothing that an old Python 3
could not read is written here.
"""

import json
import os
import platform
import re
import socket
import sys
from typing import Any

NOT_STARTED = "not-started"
"""Name of the file in the run's directory that says why the driver did not start; see
`tfos.launcher.handover.run_directory`."""
LEAST_PYTHON = (3, 10)
_CONFIG = 2  # tfos.errors.ExitCode.CONFIG
_CONTAINER = re.compile(r"container_(?:e\d+_)?(\d+_\d+)_\d+_\d+")


def explain(lacking: Exception) -> str:
    """Return one line on an ImportError, or the SyntaxError of an old Python, met at the start."""
    what = getattr(lacking, "name", None) or lacking
    lacks = f"lacks {what}"
    if isinstance(lacking, SyntaxError) or sys.version_info < LEAST_PYTHON:
        lacks = "is too old: tfos needs Python 3.10 or newer"
    version, host = platform.python_version(), socket.gethostname()
    return (
        f"the driver's Python, {sys.executable} ({version}) on {host}, {lacks}; ship an "
        "environment by --env venv:DIRECTORY or conda:NAME, or name another Python of the hosts "
        "by --spark-conf spark.pyspark.python"
    )


def note(line: str, submission_file: str, container: str) -> None:
    """Leave `line` for the client in the run's directory, by Hadoop's client in Spark's JVM."""
    from pyspark.java_gateway import launch_gateway

    with open(submission_file) as file:
        root = json.load(file).get("runs_root")
    found = _CONTAINER.match(container)
    if not root or found is None:
        return
    jvm: Any = launch_gateway().jvm  # type: ignore[no-untyped-call]
    hadoop = jvm.org.apache.hadoop
    path = hadoop.fs.Path(f"{root}/application_{found.group(1)}/{NOT_STARTED}")
    out = path.getFileSystem(hadoop.conf.Configuration()).create(path, True)
    out.write(bytearray(line.encode()))
    out.close()


def main() -> None:
    """Run the driver; exits with its code."""
    # This file's own directory comes first on the path, where its neighbours' names would shadow
    # modules of the user's.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    try:
        from tfos.launcher.driver.main import run_program
    except (ImportError, SyntaxError) as lacking:
        line = explain(lacking)
        sys.stderr.write(f"tfos: error: {line}\n")
        try:
            note(line, sys.argv[1], os.environ.get("CONTAINER_ID", ""))
        except Exception as error:
            sys.stderr.write(f"the client does not hear of it: {error}\n")
        sys.exit(_CONFIG)
    run_program(sys.argv)


if __name__ == "__main__":
    main()
