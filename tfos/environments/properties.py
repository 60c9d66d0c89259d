"""Say an environment to Spark: the properties by which containers get it and use it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tfos.environment_spec import EnvironmentSpec
from tfos.errors import ConfigError
from tfos.master import MasterKind

__all__ = ["ENVIRONMENT_PYTHON", "check_environment", "environment_properties"]

_DIRECTORY = "environment"
ENVIRONMENT_PYTHON = f"./{_DIRECTORY}/bin/python"
"""The interpreter of an unpacked archive, from the working directory of a container."""

# What gives a driver in the cluster its variables.
_DRIVER_ENV: dict[MasterKind, str] = {
    "yarn": "spark.yarn.appMasterEnv",
    "k8s": "spark.kubernetes.driverEnv",
}
_WHERE = "--master yarn, k8s://URL or spark://HOST:PORT"
# An image has its own interpreter; that of this machine is not in it.
_IMAGE_PYTHON = "python3"


def check_environment(spec: EnvironmentSpec, kind: MasterKind) -> None:
    """Refuse an environment that executors of this kind of master cannot be given.

    Raises
    ------
    ConfigError
        One line naming the option, why not, and what to use instead.
    """
    if spec.kind == "none":
        return
    if kind in ("local", "local-cluster"):
        raise ConfigError(
            f"--env {spec} is for executors on other hosts: those of --master {kind} run the "
            f"Python that submits; use --env none, or {_WHERE}"
        )
    if spec.kind == "docker" and kind == "standalone":
        raise ConfigError(
            f"--env {spec}: a standalone master starts executors outside of images; use --master "
            "yarn or k8s://URL, or --env venv:DIRECTORY"
        )


def environment_properties(
    spec: EnvironmentSpec,
    kind: MasterKind,
    archive_url: str | None = None,
    *,
    archives: Sequence[str] = (),
) -> dict[str, str]:
    """Return the Spark properties by which every container has the environment and runs its Python.

    Parameters
    ----------
    spec
        What ``--env`` says.
    kind
        The kind of master.
    archive_url
        Where containers find the packed archive; only ``archive:URL`` has one of its own.
    archives
        The user's own archives. They are in the same property: an option ``--archives`` beside it
        would replace the environment, so it has to be left out.

    Raises
    ------
    ConfigError
        If such executors cannot be given it, or it has to be packed and has no URL.
    """
    check_environment(spec, kind)
    if spec.kind == "none":
        return {}
    if spec.kind == "docker":
        return _image_properties(spec.value, kind)
    url = archive_url or (spec.value if spec.kind == "archive" else None)
    if url is None:
        raise ConfigError(
            f"--env {spec} has to be packed and put where every host of the cluster reads it, and "
            "no URL of its archive is given"
        )
    listed = ",".join([*archives, f"{url}#{_DIRECTORY}"])
    name = "spark.yarn.dist.archives" if kind == "yarn" else "spark.archives"
    properties = {name: listed, "spark.pyspark.python": ENVIRONMENT_PYTHON}
    if kind == "yarn":
        # In cluster mode the driver is in YARN's application master, which has only this.
        properties["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] = ENVIRONMENT_PYTHON
    # The packages in a host user's home would come before those of the environment.
    properties["spark.executorEnv.PYTHONNOUSERSITE"] = "1"
    if kind in _DRIVER_ENV:
        properties[f"{_DRIVER_ENV[kind]}.PYTHONNOUSERSITE"] = "1"
    return properties


def _image_properties(image: str, kind: MasterKind) -> dict[str, str]:
    properties = {"spark.pyspark.python": _IMAGE_PYTHON}
    if kind == "k8s":
        return {"spark.kubernetes.container.image": image, **properties}
    runtime = {
        "YARN_CONTAINER_RUNTIME_TYPE": "docker",
        "YARN_CONTAINER_RUNTIME_DOCKER_IMAGE": image,
    }
    for prefix in ("spark.executorEnv", "spark.yarn.appMasterEnv"):
        properties.update({f"{prefix}.{name}": value for name, value in runtime.items()})
    properties["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] = _IMAGE_PYTHON
    return properties
