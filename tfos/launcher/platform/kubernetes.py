"""Say a run to Spark on Kubernetes: properties, pod templates, what is refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from tfos.config import SparkConfig
from tfos.errors import ConfigError

__all__ = ["check_kubernetes", "kubernetes_properties", "pod_templates"]

_Pod = Literal["driver", "executor"]

_IMAGE: Final = "spark.kubernetes.container.image"
_UPLOAD_PATH: Final = "spark.kubernetes.file.upload.path"
_SHARED_MEMORY: Final = {"name": "shared-memory", "mountPath": "/dev/shm"}
# Nothing of tfos needs more. Which user it is, the image decides: one that has only a name could
# not be shown not to be root.
_SECURITY_CONTEXT: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def kubernetes_properties(spark: SparkConfig) -> dict[str, str]:
    """Return the Spark properties that no other master has.

    Files of `pod_templates` are named as there, relative to the current directory.
    """
    properties = {}
    for pod in _templated(spark):
        properties[f"spark.kubernetes.{pod}.podTemplateFile"] = _file_of(pod)
        properties[f"spark.kubernetes.{pod}.podTemplateContainerName"] = _container_of(pod)
    if spark.deploy_mode == "cluster":
        properties["spark.kubernetes.submission.waitAppCompletion"] = str(spark.wait).lower()
        if spark.staging_dir is not None:
            properties[_UPLOAD_PATH] = f"{spark.staging_dir.rstrip('/')}/uploads"
    return properties


def pod_templates(spark: SparkConfig) -> dict[str, Mapping[str, Any]]:
    """Return the pod templates of a run by file name: what Spark has no properties for.

    A template that the user's own properties name takes the place of ours.
    """
    return {_file_of(pod): _template(pod) for pod in _templated(spark)}


def _template(pod: _Pod) -> Mapping[str, Any]:
    container: dict[str, Any] = {"name": _container_of(pod), "securityContext": _SECURITY_CONTEXT}
    spec: dict[str, Any] = {"containers": [container]}
    if pod == "executor":
        # By default a container has 64 MB of it; spools and the ranks of one host want more. It
        # counts as memory of the container, which limits it.
        container["volumeMounts"] = [_SHARED_MEMORY]
        spec["volumes"] = [{"name": _SHARED_MEMORY["name"], "emptyDir": {"medium": "Memory"}}]
    return {"apiVersion": "v1", "kind": "Pod", "spec": spec}


def _templated(spark: SparkConfig) -> list[_Pod]:
    return [
        pod for pod in _pods(spark) if f"spark.kubernetes.{pod}.podTemplateFile" not in spark.conf
    ]


def _pods(spark: SparkConfig) -> tuple[_Pod, ...]:
    return ("driver", "executor") if spark.deploy_mode == "cluster" else ("executor",)


def _file_of(pod: _Pod) -> str:
    return f"{pod.upper()}-POD.yaml"


def _container_of(pod: _Pod) -> str:
    return f"spark-kubernetes-{pod}"


def check_kubernetes(spark: SparkConfig) -> None:
    """Refuse a submission that Spark on Kubernetes could not start.

    Raises
    ------
    ConfigError
        One line naming what is missing and the option to give.
    """
    has_image = spark.env.kind == "docker" or _IMAGE in spark.conf
    if not has_image and any(
        f"spark.kubernetes.{pod}.container.image" not in spark.conf for pod in _pods(spark)
    ):
        raise ConfigError(
            f"--master {spark.master} runs images only: name one that has Spark and Python by "
            f"--env docker:IMAGE, or by --spark-conf {_IMAGE}=IMAGE beside another --env"
        )
    uploads = spark.staging_dir is not None or _UPLOAD_PATH in spark.conf
    if spark.deploy_mode == "cluster" and not uploads:
        raise ConfigError(
            "--deploy-mode cluster on Kubernetes uploads the application to where its pods read "
            f"it: set spark.staging_dir, or --spark-conf {_UPLOAD_PATH}=URL"
        )
