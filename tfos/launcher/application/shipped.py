"""The application's files on their way to the processes of a run: a snapshot, by Spark's channel.

The driver gives Spark one archive of them; Spark fetches it once per executor. Spark's Python
workers import from it what a UDF needs; each role host unpacks it for its training processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfos.base import Job
from tfos.launcher.application.archive import (
    ApplicationHome,
    home_of_directory,
    home_of_module,
    pack_application,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "ShippedApplication",
    "UnpackedApplication",
    "home_of_job",
    "is_archive",
    "shipped_application",
]

_PREFIX = "tfos-application-"


@dataclass(frozen=True)
class UnpackedApplication:
    """The application's files on a host.

    Parameters
    ----------
    directory
        Where they lie.
    paths
        Directories below it that go on ``sys.path``, the first one first.
    home
        The user's own directory, which tracebacks show in its place.
    """

    directory: str
    paths: tuple[str, ...]
    home: str

    def source_digest(self) -> str:
        """Return the SHA-256 of the Python files, by their paths and content alone."""
        digest = hashlib.sha256()
        for path in sorted(Path(self.directory).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self.directory)}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()


@dataclass(frozen=True)
class ShippedApplication:
    """The application's files in the care of Spark.

    Parameters
    ----------
    archive
        Name of the archive among the files of the Spark application.
    paths, home
        As in `UnpackedApplication`.
    """

    archive: str
    paths: tuple[str, ...]
    home: str

    def unpack(self, directory: Path) -> UnpackedApplication:
        """Unpack the archive into `directory`, made here, in a task of Spark's."""
        from pyspark import SparkFiles

        directory.mkdir(mode=0o700)
        with zipfile.ZipFile(SparkFiles.get(self.archive)) as archive:
            archive.extractall(directory)
        return UnpackedApplication(str(directory), self.paths, self.home)


@contextlib.contextmanager
def shipped_application(job: Job, spark: SparkSession) -> Iterator[ShippedApplication | None]:
    """Give Spark a snapshot of the files of the Job's application. Runs on the driver.

    None for a Job of a notebook that imports nothing beside it, or of an installed package.

    For the length of the block, functions of the Job's own module travel to Spark's Python workers
    by value, as spark-submit has it for those of its file: a worker that runs a UDF need not import
    TensorFlow. Modules beside it are imported there.

    Raises
    ------
    ConfigError
        If there is too much, or part of a package cannot be read.
    """
    from pyspark import cloudpickle as of_spark

    by_value: Any = of_spark
    home = home_of_job(type(job))
    if home is None:
        yield None
        return
    shipped = ShippedApplication(_ship(home, spark), home.paths, str(home.directory))
    module = sys.modules.get(home.module)
    if module is None or home.module == "__main__":
        yield shipped
        return
    by_value.register_pickle_by_value(module)
    try:
        yield shipped
    finally:
        by_value.unregister_pickle_by_value(module)


def home_of_job(job_class: type[Job]) -> ApplicationHome | None:
    """Return where the files of a Job's application are; None when there are none to ship."""
    module = sys.modules.get(job_class.__module__)
    if module is None:
        return None
    if module.__name__ != "__main__":
        return home_of_module(module)
    file = getattr(module, "__file__", None)
    return home_of_directory(Path(file).resolve().parent if file else Path.cwd().resolve())


def is_archive(path: str) -> bool:
    """Say whether an entry of ``sys.path`` is an archive that `shipped_application` made."""
    return os.path.basename(path).startswith(_PREFIX)


def _ship(home: ApplicationHome, spark: SparkSession) -> str:
    """Return the archive's name; a session that has it already is not given it again."""
    context: Any = spark.sparkContext
    data = pack_application(home.directory)
    name = f"{_PREFIX}{hashlib.sha256(data).hexdigest()[:16]}.zip"
    if name in context._python_includes:
        return name
    # Spark's own directory, removed with it: executors that start late fetch the file from here.
    path = Path(context._temp_dir, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(data)
    context.addPyFile(str(path))
    # The driver has the files themselves.
    sys.path[:] = [entry for entry in sys.path if not is_archive(entry)]
    return name
