"""Check what a submission needs on this machine: the application, its files, Java, PySpark."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tfos
from tfos.account import has_entry, home_directory, user_name
from tfos.config import JobConfig
from tfos.errors import ConfigError, LaunchError
from tfos.java import find_java, jvm_refusal
from tfos.launcher.application.archive import check_module_name, home_of_file
from tfos.launcher.application.check import check_source
from tfos.launcher.platform.role_tasks import role_resources
from tfos.machine_faults import machine_fault
from tfos.master import Master

__all__ = [
    "check_account",
    "check_application",
    "check_files",
    "check_gpus",
    "check_java",
    "child_environment",
    "find_spark_home",
    "is_set_for_spark",
    "parse_app",
    "submitting_environment",
]

LEAST_JAVA: Final = 17
_JAVA_ADVICE = (
    f"install Java {LEAST_JAVA} or newer (Debian and Ubuntu: apt install "
    f"openjdk-{LEAST_JAVA}-jre-headless) and set JAVA_HOME to it"
)
_SUBMIT_LOG = Path(__file__).with_name("log4j2-submit.properties")
_JAVA_TIMEOUT_S = 20.0
_GPU_DISCOVERY = ("spark.executor.resource.gpu.discoveryScript", "spark.resources.discoveryPlugin")
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def parse_app(app: str) -> tuple[Path, str | None]:
    """Split ``app.py[:JobClass]`` into the file's absolute path and the class's name.

    Raises
    ------
    ConfigError
        If there is no such file, or it is no ``.py`` file.
    """
    file, colon, name = app.rpartition(":")
    if not (colon and name.isidentifier()):
        file, name = app, ""
    path = Path(file)
    if path.suffix != ".py":
        raise ConfigError(f"{app!r} is not an application: expected FILE.py or FILE.py:JobClass")
    if not path.is_file():
        raise ConfigError(f"there is no application {file} in {Path.cwd()}")
    return path.resolve(), name or None


def check_application(path: Path, job_class: str | None) -> None:
    """Check an application for mistakes that its text and its name show; nothing of it is run.

    Parameters
    ----------
    path, job_class
        As `parse_app` returns them.

    Raises
    ------
    ConfigError
        If it cannot be read or imported, has no Job, or its Job lacks a method; in one line.
    """
    check_module_name(home_of_file(path))
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    check_source(source, str(shown), job_class)


def find_spark_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the Spark installation: ``$SPARK_HOME``, else this interpreter's PySpark.

    PySpark is looked up without being imported. Raises ConfigError when there is neither.
    """
    named = environ.get("SPARK_HOME")
    if named:
        home = Path(named)
        if not (home / "bin" / "spark-submit").is_file():
            raise ConfigError(f"SPARK_HOME is {named!r}: there is no bin/spark-submit in it")
        return home
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"PySpark is missing from {sys.executable}: install tfos with pip there")
    return Path(next(iter(spec.submodule_search_locations)))


def check_account(master: Master) -> None:
    """Check that Hadoop, in each JVM of Spark, finds the user's name.

    The driver's is told by tfos; executors and the YARN client ask passwd alone. Raises
    ConfigError where they would not find it.
    """
    if not has_entry() and master.kind != "local":
        raise ConfigError(
            f"user id {os.getuid()} has no entry in /etc/passwd, where Hadoop looks for its name "
            f"in every JVM of --master {master}: add a line such as "
            f"'app:x:{os.getuid()}:{os.getgid()}::/tmp:/bin/sh' there, or use --master local"
        )


def check_java(environ: Mapping[str, str] = os.environ) -> None:
    """Check that Spark will find a Java it can run on. Starts ``java -version``: about 0.1 s.

    Raises
    ------
    ConfigError
        If there is none, or it is too old; says how to get one.
    """
    java = find_java(_JAVA_ADVICE, environ)
    try:
        answer = subprocess.run(
            [java, "-version"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_JAVA_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchError(
            f"{java} -version did not end within {_JAVA_TIMEOUT_S:g} s: this machine is overloaded"
        ) from error
    except OSError as error:
        if error.filename is None and (fault := machine_fault(error)) is not None:
            raise fault from error
        raise ConfigError(f"{java} cannot be run ({error}): {_JAVA_ADVICE}") from error
    said = answer.stderr + answer.stdout
    match = _JAVA_VERSION.search(said)
    if answer.returncode != 0 or match is None:
        if (refusal := jvm_refusal(java, said)) is not None:
            raise refusal
        # Every JVM begins with the options that it takes from its environment.
        own = [line for line in said.splitlines() if line and not line.startswith("Picked up ")]
        first = (own or ["nothing"])[0]
        raise ConfigError(f"{java} -version said {first!r}: {_JAVA_ADVICE}")
    if int(match[1]) < LEAST_JAVA:
        raise ConfigError(f"{java} is Java {match[1]}, Spark needs {LEAST_JAVA}: {_JAVA_ADVICE}")


def is_set_for_spark(
    name: str,
    conf: Mapping[str, str],
    spark_home: Path,
    environ: Mapping[str, str] = os.environ,
) -> bool:
    """Say whether a Spark property has a value: the user's, or one of Spark's own defaults file."""
    if name in conf:
        return True
    directory = environ.get("SPARK_CONF_DIR") or spark_home / "conf"
    try:
        defaults = Path(directory, "spark-defaults.conf").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(re.split(r"[\s=:]", line.strip())[0] == name for line in defaults.splitlines())


def check_gpus(
    config: JobConfig, spark_home: Path, environ: Mapping[str, str] = os.environ
) -> None:
    """Check that executors on YARN can tell Spark which GPUs they have.

    Without a script Spark starts, for ever, executors that end at once.

    Raises
    ------
    ConfigError
        If a role is to have GPUs and no script is named; says how to name one.
    """
    conf = config.spark.conf
    asking = [role for role, (_, each) in role_resources(config).items() if each.gpus]
    known = any(is_set_for_spark(name, conf, spark_home, environ) for name in _GPU_DISCOVERY)
    if asking and not known and config.spark.master.kind == "yarn":
        raise ConfigError(
            f"--{asking[0]}-gpus needs a script by which an executor says which GPUs it has: set "
            f"--spark-conf {_GPU_DISCOVERY[0]}=PATH of one on every host, or ./NAME of one "
            "shipped by --files"
        )


def child_environment(
    config: JobConfig, spark_home: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of spark-submit: Spark's home, this interpreter, the way to tfos."""
    child = {**environ, "SPARK_HOME": str(spark_home), "PYSPARK_DRIVER_PYTHON": sys.executable}
    if config.spark.master.is_local:
        child["PYSPARK_PYTHON"] = sys.executable
        # Names of this machine need not resolve for a run that never leaves it.
        child.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if not has_entry():
        child.update(_account_of_jvm(environ))
    source = Path(tfos.__file__).resolve().parent.parent
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    if source not in installed:
        paths = [str(source), environ.get("PYTHONPATH", "")]
        child["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return child


def _account_of_jvm(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables that give Spark's JVM the name and home directory it misses in passwd."""
    name, home = user_name(environ), home_directory(environ) or Path(tempfile.gettempdir())
    options = f"{environ.get('SPARK_SUBMIT_OPTS', '')} -Duser.name={name} -Duser.home={home}"
    return {"SPARK_USER": environ.get("SPARK_USER", name), "SPARK_SUBMIT_OPTS": options.strip()}


def submitting_environment(
    config: JobConfig, spark_home: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of a spark-submit whose driver lives elsewhere.

    Its log tells of the application, whatever Spark's own configuration says.
    """
    child = child_environment(config, spark_home, environ)
    # This machine's interpreter means nothing there.
    del child["PYSPARK_DRIVER_PYTHON"]
    child["SPARK_SUBMIT_OPTS"] = (
        f"{environ.get('SPARK_SUBMIT_OPTS', '')} -Dlog4j2.configurationFile={_SUBMIT_LOG.as_uri()}"
    ).strip()
    return child


def check_files(config: JobConfig) -> None:
    """Check that local files of the run exist; raises ConfigError naming option and file."""
    spark = config.spark
    for option, names in (
        ("--py-files", spark.py_files),
        ("--files", spark.files),
        ("--archives", spark.archives),
    ):
        for name in names:
            plain = name.partition("#")[0]
            is_pattern = any(sign in plain for sign in "*?[{")
            if ":" not in plain and not is_pattern and not Path(plain).exists():
                raise ConfigError(f"{option}: there is no file {plain} in {Path.cwd()}")
    keytab = spark.keytab
    # local:/path is on every host of the cluster, not here.
    if keytab is not None and ":" not in keytab and not os.access(keytab, os.R_OK):
        raise ConfigError(f"--keytab: there is no file {keytab} that you may read")
