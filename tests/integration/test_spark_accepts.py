"""What Spark itself says of the properties, commands and pod templates that tfos gives it.

One JVM with PySpark's jars is asked; no cluster is there.
"""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tfos.config import JobConfig
from tfos.launcher.driver.resource_profiles import profile_of
from tfos.launcher.platform.checks import check_supported
from tfos.launcher.platform.kubernetes import pod_templates
from tfos.launcher.submit.shipping import plan_shipping
from tfos.launcher.submit.spark_command import (
    resolved_master,
    shipped_with,
    spark_properties,
    spark_submit_command,
)
from tfos.topology import Role, RoleSpec

pytestmark = pytest.mark.spark

# Each registers its properties when it is loaded.
REGISTERING = (
    "org.apache.spark.internal.config.package$",
    "org.apache.spark.internal.config.Network$",
    "org.apache.spark.internal.config.Python$",
    "org.apache.spark.internal.config.UI$",
    "org.apache.spark.sql.internal.SQLConf$",
    "org.apache.spark.deploy.k8s.Config$",
    "org.apache.spark.deploy.yarn.config.package$",
)
# Families of properties whose names Spark leaves open.
OPEN = re.compile(
    r"spark\.(executorEnv|yarn\.appMasterEnv|kubernetes\.driverEnv)\.[A-Z_]+"
    r"|spark\.executor\.resource\.gpu\.(amount|vendor|discoveryScript)"
    r"|spark\.task\.resource\.gpu\.amount"
)
HADOOP = "spark.hadoop."
MASTERS = {"yarn": "yarn", "k8s": "k8s://https://h:443"}
ENVIRONMENTS = ("none", "docker:reg/i:1", "venv:/home/u/train", "archive:hdfs://nn:1/e.tar.gz")


@pytest.fixture(scope="module")
def gateway():
    from pyspark.java_gateway import launch_gateway

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    gateway = launch_gateway(popen_kwargs=quiet)
    for name in REGISTERING:
        gateway.jvm.java.lang.Class.forName(name)
    yield gateway
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(10)


@pytest.fixture(scope="module")
def jvm(gateway):
    return gateway.jvm


def job(kind: str, mode: str = "client", arch: str = "ps", **spark) -> JobConfig:
    roles = {"worker": {"memory": "4g", "cores": 3, "gpus": 2}}
    if arch != "ring":
        roles["ps"] = {"memory": "2g", "cores": 1}
    image = {"spark.kubernetes.container.image": "reg/other:1"} if kind == "k8s" else {}
    given = {
        "master": MASTERS[kind],
        "deploy_mode": mode,
        "staging_dir": "hdfs://nn:1/tfos",
        "conf": image,
        **spark,
    }
    config = JobConfig.model_validate(
        {"name": "Fm.1", "arch": arch, "roles": roles, "spark": given}
    )
    check_supported(config, dry_run=True)
    return config


def command_of(config: JobConfig) -> list[str]:
    planned = plan_shipping(config)
    if config.spark.deploy_mode == "cluster":
        planned = shipped_with(planned, "/run/submission.json", "/run/application.zip")
    return spark_submit_command(planned, "submission.json", spark_home=Path("/opt/spark"))


def properties_of(command: list[str]) -> dict[str, str]:
    return dict(command[i + 1].split("=", 1) for i, word in enumerate(command) if word == "--conf")


def complaint(jvm, name: str, value: str) -> str | None:
    """Say what Spark has against a property; None for nothing."""
    if OPEN.fullmatch(name):
        return None
    if name.startswith(HADOOP):
        known = jvm.org.apache.hadoop.yarn.conf.YarnConfiguration().get(name.removeprefix(HADOOP))
        return None if known is not None else f"Hadoop has no {name}"
    entry = jvm.org.apache.spark.internal.config.ConfigEntry.findEntry(name)
    if entry is None:
        return f"Spark has no {name}"
    try:
        entry.valueConverter().apply(value)
    except Exception as error:
        return f"{name}={value}: {error.java_exception}"
    return None


@pytest.mark.parametrize("arch", ["local", "ps", "session", "ring"])
@pytest.mark.parametrize("mode", ["client", "cluster"])
@pytest.mark.parametrize("kind", ["yarn", "k8s"])
def test_spark_knows_every_property_and_reads_its_value(jvm, kind, mode, arch):
    options = {"encrypt": True, "principal": "u@R", "keytab": "/k", "wait": mode == "client"}
    if kind == "yarn":
        options |= {"queue": "q", "priority": 3, "tags": ["a"]}
    asked = {}
    for env in ENVIRONMENTS:
        asked |= properties_of(command_of(job(kind, mode, arch, env=env, **options)))
    assert len(asked) > 20
    assert [told for each in asked.items() if (told := complaint(jvm, *each))] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spark.kubernetes.executor.podTemplate", "x"),
        ("spark.executor.resource.gpu.number", "1"),
        ("spark.hadoop.yarn.no.such.thing", "1"),
        ("spark.executor.memory", "much"),
        ("spark.encrypt", "true"),
    ],
)
def test_the_question_itself(jvm, name, value):
    assert name in complaint(jvm, name, value)


def submitted(jvm, command: list[str]):
    """Return the properties that spark-submit makes of a command."""
    spark = jvm.org.apache.spark
    words, environ = jvm.java.util.ArrayList(), jvm.java.util.HashMap()
    for word in command[1:]:
        words.add(word)
    environ.put("HADOOP_CONF_DIR", "/etc/hadoop")
    to_scala = spark.api.python.PythonUtils
    arguments = spark.deploy.SparkSubmitArguments(
        to_scala.toSeq(words), to_scala.toScalaMap(environ)
    )
    prepared = spark.deploy.SparkSubmit().prepareSubmitEnvironment(
        arguments, jvm.scala.Option.empty()
    )
    return prepared._3()


@pytest.mark.parametrize("env", ["venv:/home/u/train", "archive:file:///e.tar.gz"])
@pytest.mark.parametrize(("kind", "name"), [("k8s", "archives"), ("yarn", "yarn.dist.archives")])
def test_a_driver_in_the_cluster_gets_environment_and_application(jvm, kind, name, env):
    config = job(kind, "cluster", env=env, archives=["/own.zip#own"], staging_dir="file:///tfos")
    listed = submitted(jvm, command_of(config)).get(f"spark.{name}").split(",")
    fragments = [url.rpartition("#")[2] for url in listed]
    assert sorted(fragments) == ["environment", "own", "tfos-application"]


def run_in_pods(jvm, config: JobConfig, directory):
    """Return Spark's configuration of a run on Kubernetes whose files are in a directory."""
    for name, template in pod_templates(config.spark).items():
        (directory / name).write_text(yaml.safe_dump(template))
    conf = jvm.org.apache.spark.SparkConf(False)
    for name, value in spark_properties(config).items():
        is_file = name.endswith(".podTemplateFile")
        conf.set(name, str(directory / value) if is_file else value)
    for name, value in {
        "spark.master": resolved_master(config),
        "spark.app.name": config.name,
    }.items():
        conf.set(name, value)
    # As a driver does: without a default profile the first of a role would be taken for it.
    default_profiles(jvm).clearDefaultProfile()
    default_profiles(jvm).getOrCreateDefaultProfile(conf)
    return conf


def default_profiles(jvm):
    name = "org.apache.spark.resource.ResourceProfile$"
    return jvm.java.lang.Class.forName(name).getField("MODULE$").get(None)


def as_documents(jvm, spark_pod):
    """Return the pod and its container."""
    as_yaml = jvm.io.fabric8.kubernetes.client.utils.Serialization.asYaml
    pod, container = as_yaml(spark_pod.pod()), as_yaml(spark_pod.container())
    return yaml.safe_load(pod), yaml.safe_load(container)


def api(jvm):
    """Return a client that is never asked to connect."""
    return jvm.io.fabric8.kubernetes.client.KubernetesClientBuilder().build()


def executor_pod(jvm, conf, profile):
    spark, none = jvm.org.apache.spark, jvm.scala.Option.empty()
    # By then the driver has said where it is.
    conf.set("spark.driver.host", "h").set("spark.driver.port", "7")
    secret_file = spark.internal.config.ConfigEntry.findEntry("spark.authenticate.secret.file")
    return as_documents(
        jvm,
        spark.scheduler.cluster.k8s.KubernetesExecutorBuilder()
        .buildFromFeatures(
            spark.deploy.k8s.KubernetesConf.createExecutorConf(
                conf, "1", "app-1", none, profile.id()
            ),
            spark.SecurityManager(conf, none, secret_file),
            api(jvm),
            profile,
        )
        .pod(),
    )


def profile_in_jvm(jvm, config: JobConfig, spec: RoleSpec):
    """Return Spark's own object of the resource profile that tfos asks for a role."""
    context = SimpleNamespace(
        master=config.spark.master,
        getConf=lambda: SimpleNamespace(getAll=spark_properties(config).items),
    )
    asked = profile_of(SimpleNamespace(sparkContext=context), spec)
    resource = jvm.org.apache.spark.resource
    executors, tasks = resource.ExecutorResourceRequests(), resource.TaskResourceRequests()
    for name, each in asked.executorResources.items():
        if name == "cores":
            executors.cores(each.amount)
        elif name in ("memory", "memoryOverhead"):
            getattr(executors, name)(f"{each.amount}m")
        else:
            executors.resource(name, each.amount, each.discoveryScript, each.vendor)
    tasks.cpus(int(asked.taskResources["cpus"].amount))
    return resource.ResourceProfileBuilder().require(executors).require(tasks).build()


def test_a_roles_pod_has_what_the_role_asks_for(jvm, tmp_path):
    config = job("k8s", env="docker:reg/i:1", conf={})
    worker = RoleSpec(Role.WORKER, 2, trains=True, cores=3, memory_bytes=4 << 30, gpus=2)
    conf = run_in_pods(jvm, config, tmp_path)
    pod, container = executor_pod(jvm, conf, profile_in_jvm(jvm, config, worker))
    assert (container["name"], container["image"]) == ("spark-kubernetes-executor", "reg/i:1")
    limits = {"memory": "4096Mi", "nvidia.com/gpu": "2"}
    assert container["resources"]["limits"] == limits
    assert container["resources"]["requests"] == {"memory": "4096Mi", "cpu": "3"}
    check_template(pod, container)
    parameter_server = RoleSpec(Role.PS, 1, trains=False, cores=1, memory_bytes=2 << 30)
    _, container = executor_pod(jvm, conf, profile_in_jvm(jvm, config, parameter_server))
    assert container["resources"]["limits"] == {"memory": "2048Mi"}
    assert container["resources"]["requests"] == {"memory": "2048Mi", "cpu": "1"}


def check_template(pod, container):
    """Say whether what the executors' template has is in the pod that Spark makes."""
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == "/dev/shm"]
    (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == mount["name"]]
    assert volume["emptyDir"] == {"medium": "Memory"}


def test_a_rings_pods_are_of_the_default_profile(jvm, tmp_path):
    config = job("k8s", arch="ring", env="docker:reg/i:1", conf={})
    conf = run_in_pods(jvm, config, tmp_path)
    profile = default_profiles(jvm).getOrCreateDefaultProfile(conf)
    pod, container = executor_pod(jvm, conf, profile)
    assert container["resources"]["limits"] == {"memory": "4096Mi", "nvidia.com/gpu": "2"}
    assert container["resources"]["requests"]["cpu"] == "3"
    check_template(pod, container)


def test_a_drivers_pod(gateway, jvm, tmp_path):
    staging = f"file://{tmp_path}/staging"
    config = job("k8s", "cluster", env="docker:reg/i:1", conf={}, staging_dir=staging)
    conf = run_in_pods(jvm, config, tmp_path)
    (tmp_path / "driver.py").write_text("")
    k8s = jvm.org.apache.spark.deploy.k8s
    arguments = gateway.new_array(jvm.java.lang.String, 1)
    arguments[0] = "submission.json"
    driver = k8s.KubernetesConf.createDriverConf(
        conf,
        "app-1",
        k8s.submit.PythonMainAppResource(f"file://{tmp_path}/driver.py"),
        "org.apache.spark.deploy.PythonRunner",
        arguments,
        jvm.scala.Option.empty(),
    )
    built = k8s.submit.KubernetesDriverBuilder().buildFromFeatures(driver, api(jvm))
    pod, container = as_documents(jvm, built.pod())
    assert (container["name"], container["image"]) == ("spark-kubernetes-driver", "reg/i:1")
    assert container["resources"]["limits"] == {"memory": "2048Mi"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["args"][-1] == "submission.json"
    # The executors' template goes along, and so does what lies on the submitting machine.
    assert "pod-template-volume" in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert [path.name for path in tmp_path.glob("staging/uploads/*/*.py")] == ["driver.py"]
