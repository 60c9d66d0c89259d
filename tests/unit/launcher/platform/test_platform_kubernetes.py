"""A run on Kubernetes as Spark is told of it: properties, pod templates, what is refused."""

from __future__ import annotations

import shlex

import pytest
import yaml

from tfos.config import JobConfig
from tfos.errors import ConfigError
from tfos.launcher.platform.kubernetes import check_kubernetes, kubernetes_properties, pod_templates
from tfos.launcher.submit.client import submit
from tfos.launcher.submit.spark_command import describe_submission, spark_properties

MASTER = "k8s://https://h:443"
IMAGE = "spark.kubernetes.container.image"


def config(**spark) -> JobConfig:
    return JobConfig.model_validate({"spark": {"master": MASTER, "env": "docker:i", **spark}})


def templates_in(text: str):
    """Read the YAML documents of a dry run but for the first, which is the configuration."""
    return list(yaml.safe_load_all(text.partition("# The command")[0]))[1:]


@pytest.mark.parametrize(
    ("mode", "pods"), [("client", ["executor"]), ("cluster", ["driver", "executor"])]
)
def test_each_pod_that_spark_makes_has_a_template(mode, pods):
    given = config(deploy_mode=mode)
    properties = spark_properties(given)
    shown = templates_in(describe_submission(given, ["spark-submit"]))
    assert shown == list(pod_templates(given.spark).values())
    assert len(shown) == len(pods)
    for pod, document in zip(pods, shown, strict=True):
        prefix = f"spark.kubernetes.{pod}.podTemplate"
        assert pod_templates(given.spark)[properties[f"{prefix}File"]] == document
        assert set(document) == {"apiVersion", "kind", "spec"}
        assert (document["apiVersion"], document["kind"]) == ("v1", "Pod")
        (container,) = document["spec"]["containers"]
        assert container["name"] == properties[f"{prefix}ContainerName"]
        # Spark fills in what these would say.
        assert not {"image", "resources", "env", "command", "args"} & container.keys()
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    absent = {"driver", "executor"} - set(pods)
    assert not [name for name in properties for pod in absent if f"{pod}.podTemplate" in name]


def test_executors_have_as_much_shared_memory_as_memory():
    template = pod_templates(config().spark)["EXECUTOR-POD.yaml"]
    (container,) = template["spec"]["containers"]
    assert container["volumeMounts"] == [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    assert template["spec"]["volumes"] == [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}
    ]


def test_the_users_template_takes_the_place_of_ours():
    own = {"spark.kubernetes.executor.podTemplateFile": "/mine.yaml"}
    given = config(conf=own, deploy_mode="cluster")
    assert list(pod_templates(given.spark)) == ["DRIVER-POD.yaml"]
    properties = spark_properties(given)
    assert properties["spark.kubernetes.executor.podTemplateFile"] == "/mine.yaml"
    # It may have another name for its container, or none.
    assert "spark.kubernetes.executor.podTemplateContainerName" not in properties


def test_a_driver_in_the_cluster():
    given = config(deploy_mode="cluster", wait=False, staging_dir="s3a://b/tfos/")
    properties = spark_properties(given)
    assert properties["spark.kubernetes.submission.waitAppCompletion"] == "false"
    assert properties["spark.kubernetes.file.upload.path"] == "s3a://b/tfos/uploads"
    assert (properties["spark.driver.memory"], properties["spark.driver.memoryOverhead"]) == (
        "1g",
        "1g",
    )
    own = config(deploy_mode="cluster", conf={"spark.kubernetes.file.upload.path": "s3a://x"})
    assert spark_properties(own)["spark.kubernetes.file.upload.path"] == "s3a://x"


def test_gpus_are_those_that_kubernetes_knows():
    roles = {"worker": {"gpus": 2}}
    spark = {"master": MASTER, "env": "docker:i"}
    given = JobConfig.model_validate({"arch": "ps", "roles": roles, "spark": spark})
    vendor = "spark.executor.resource.gpu.vendor"
    assert spark_properties(given)[vendor] == "nvidia.com"
    # Without an amount Spark refuses it.
    assert vendor not in spark_properties(config())


def test_the_dry_run_of_a_driver_in_the_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("from jobs import *")
    conf = {IMAGE: "i"}
    given = config(deploy_mode="cluster", staging_dir="s3a://b", env="venv:/e", conf=conf)
    assert submit(given, "app.py", dry_run=True) == 0
    text = capsys.readouterr().out
    assert [each["spec"]["containers"][0]["name"] for each in templates_in(text)] == [
        "spark-kubernetes-driver",
        "spark-kubernetes-executor",
    ]
    words = shlex.split(text.partition("# The command\n")[2].replace("\\\n", " "))
    assert words[words.index("--files") + 1] == "SUBMISSION.json"
    archives = (
        "s3a://b/environments/ENVIRONMENT.tar.gz#environment,APPLICATION.zip#tfos-application"
    )
    assert f"spark.archives={archives}" in words
    assert list(tmp_path.iterdir()) == [tmp_path / "app.py"]


def test_no_other_master_hears_of_kubernetes():
    for master in ("yarn", "local"):
        given = JobConfig.model_validate({"spark": {"master": master}})
        assert not [name for name in spark_properties(given) if "kubernetes" in name]
        assert templates_in(describe_submission(given, ["x"])) == []


@pytest.mark.parametrize(
    ("spark", "says"),
    [
        ({"env": "none"}, f"--master {MASTER} runs images only: name one"),
        ({"env": "venv:/e"}, f"--master {MASTER} runs images only: name one"),
        (
            {
                "env": "none",
                "deploy_mode": "cluster",
                "staging_dir": "s3a://b",
                "conf": {"spark.kubernetes.executor.container.image": "i"},
            },
            f"--master {MASTER} runs images only: name one",
        ),
        ({"deploy_mode": "cluster"}, "--deploy-mode cluster on Kubernetes uploads the application"),
    ],
)
def test_what_spark_could_not_start_is_refused(spark, says):
    with pytest.raises(ConfigError) as caught:
        check_kubernetes(config(**spark).spark)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    "spark",
    [
        {},
        {"env": "venv:/e", "conf": {IMAGE: "i"}},
        {"env": "none", "conf": {"spark.kubernetes.executor.container.image": "i"}},
        {"deploy_mode": "cluster", "staging_dir": "s3a://b"},
        {"deploy_mode": "cluster", "conf": {"spark.kubernetes.file.upload.path": "s3a://b"}},
    ],
)
def test_what_spark_can_start_passes(spark):
    check_kubernetes(config(**spark).spark)
    assert kubernetes_properties(config(**spark).spark)
