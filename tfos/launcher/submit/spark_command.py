"""Write the spark-submit command of a run: properties, arguments, the text of a dry run. Pure."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from tfos.config import JobConfig, SparkConfig
from tfos.environments.properties import environment_properties
from tfos.errors import ConfigError
from tfos.frameworks.tensorflow.keras import keras_variables
from tfos.launcher.handover import driver_script
from tfos.launcher.platform.kubernetes import kubernetes_properties, pod_templates
from tfos.launcher.platform.role_memory import DEFAULT_MEMORY_BYTES, divide_memory
from tfos.launcher.platform.role_tasks import (
    allocates_dynamically,
    is_gang,
    role_resources,
    slots_needed,
    task_failures,
)
from tfos.launcher.platform.spark_security import security_properties
from tfos.master import Master

__all__ = [
    "APPLICATION_DIRECTORY",
    "CLUSTER_TAG",
    "DRIVER_SCRIPT",
    "TAG",
    "describe_submission",
    "resolved_master",
    "secret_properties",
    "shipped_with",
    "spark_properties",
    "spark_submit_command",
]

APPLICATION_DIRECTORY = "tfos-application"
"""Where a driver in the cluster finds the application, in its own directory."""
TAG, CLUSTER_TAG = "tfos", "tfos-cluster"
"""YARN tags: of every run, and of those whose driver is in the cluster."""
DRIVER_SCRIPT = Path(driver_script.__file__)
_DAEMON = "tfos.launcher.role.daemon"
_QUIET_LOG = Path(__file__).with_name("log4j2-quiet.properties")
# Beside what tfos says there stands what the user says.
_JOINED_BY = {
    "spark.driver.extraJavaOptions": " ",
    "spark.executor.extraJavaOptions": " ",
    "spark.yarn.tags": ",",
}
# The words by which Spark itself redacts properties (spark.redaction.regex), and "credential".
_SECRET = re.compile(r"secret|password|token|access[.]?key|credential", re.IGNORECASE)
_MIB = 1 << 20
_BARRIER_PROPERTIES = {
    # A barrier stage and dynamic allocation exclude each other (SPARK-24942).
    "spark.dynamicAllocation.enabled": "false",
    # tfos waits for task slots itself; should an executor go right then, Spark looks again soon.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "5",
    # Nor does Spark wait for executors, for 30 s, before pre_train begins.
    "spark.scheduler.minRegisteredResourcesRatio": "0",
    # Packed batches are large rows (tfos.arrow_feed.gang): so many bytes of them at once.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(16 * _MIB),
}
_YARN_PROPERTIES = {
    # By default a client tries for a quarter of an hour; a ResourceManager that is replaced by
    # another takes a minute or two.
    "spark.hadoop.yarn.resourcemanager.connect.max-wait.ms": "180000",
    "spark.hadoop.yarn.resourcemanager.connect.retry-interval.ms": "2000",
}
# Beside the driver's heap live its Python and a ZooKeeper server.
_CLUSTER_DRIVER = {"spark.driver.memory": "1g", "spark.driver.memoryOverhead": "1g"}
_DYNAMIC_ALLOCATION = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "0",
    "spark.dynamicAllocation.initialExecutors": "0",
}


def spark_submit_command(
    config: JobConfig,
    submission_path: str,
    *,
    spark_home: Path,
    default_name: str = "tfos",
    properties_file: str | None = None,
    python: str = sys.executable,
) -> list[str]:
    """Return the arguments that submit the driver, the program first.

    Parameters
    ----------
    submission_path
        Where the driver reads its `Submission`.
    spark_home
        Directory of the Spark installation.
    default_name
        Name of the Spark application when the job has none yet.
    properties_file
        File that holds `secret_properties`, which must not be seen on a command line.
    python
        Interpreter of the driver, and on local masters of the executors.

    Raises
    ------
    InsufficientExecutorsError
        If the master has fewer task slots than there are roles.
    ConfigError
        If the master or a property is malformed.
    """
    spark = config.spark
    secrets = secret_properties(config)
    command = [str(spark_home / "bin" / "spark-submit")]
    command += ["--master", resolved_master(config), "--deploy-mode", spark.deploy_mode]
    command += ["--name", config.name or default_name]
    if spark.queue is not None:
        command += ["--queue", spark.queue]
    if secrets and properties_file is not None:
        command += ["--load-spark-defaults", "--properties-file", properties_file]
    for name, value in spark_properties(config, python=python).items():
        if name not in secrets:
            command += ["--conf", f"{name}={value}"]
    for option, values in (
        ("--py-files", spark.py_files),
        ("--files", spark.files),
        ("--archives", spark.archives),
    ):
        if values:
            command += [option, ",".join(values)]
    return [*command, str(DRIVER_SCRIPT), submission_path]


def shipped_with(config: JobConfig, submission: str, application: str) -> JobConfig:
    """Return the configuration with what a driver in the cluster needs to be shipped."""
    spark = config.spark
    archives, conf = [*spark.archives, f"{application}#{APPLICATION_DIRECTORY}"], spark.conf
    if "spark.archives" in conf:
        # Spark lets its option --archives replace the property.
        conf = {**conf, "spark.archives": ",".join([conf["spark.archives"], *archives])}
        archives = []
    shipped = {"files": [*spark.files, submission], "archives": archives, "conf": conf}
    return config.model_copy(update={"spark": spark.model_copy(update=shipped)})


def resolved_master(config: JobConfig) -> Master:
    """Return the master with room for every role; as `Master.with_room` says."""
    text = config.spark.conf.get("spark.task.cpus", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--spark-conf spark.task.cpus is {text!r}: expected 1 or more")
    return config.spark.master.with_room(
        slots_needed(config),
        cpus_per_task=int(text),
        failures=task_failures(config),
    )


def secret_properties(config: JobConfig) -> dict[str, str]:
    """Return the user's Spark properties whose names say that they are secret."""
    return {name: value for name, value in config.spark.conf.items() if _SECRET.search(name)}


def spark_properties(config: JobConfig, *, python: str = sys.executable) -> dict[str, str]:
    """Return every Spark property of the run: tfos's own, then the user's, which win.

    Java options are joined instead, the user's last, because the JVM takes the last one; so are
    YARN's tags, by which runs are found.
    """
    kind = config.spark.master.kind
    properties = {
        "spark.ui.showConsoleProgress": "false",
        "spark.speculation": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(config.feed.batch_rows),
        "spark.python.task.killTimeout": "200ms",
    }
    # For functions of the application that run in Spark's Python workers.
    for name, value in keras_variables(config.keras).items():
        properties[f"spark.executorEnv.{name}"] = value
    if config.spark.deploy_mode == "client":
        properties["spark.pyspark.driver.python"] = python
        properties["spark.driver.extraJavaOptions"] = _quiet_log_option()
    if config.spark.master.is_local:
        properties.update(_local_properties(python))
    # A role host that is lost is run again by Spark, as often as tfos may restart.
    properties["spark.task.maxFailures"] = str(task_failures(config))
    if is_gang(config):
        properties.update(_BARRIER_PROPERTIES)
    if kind == "local-cluster":
        properties["spark.executor.extraJavaOptions"] = _quiet_log_option()
    if config.spark.master.in_containers:
        properties.update(_cluster_properties(config))
    if kind == "yarn":
        properties.update(_yarn_properties(config.spark))
    if kind == "k8s":
        properties.update(kubernetes_properties(config.spark))
    properties.update(security_properties(config.spark))
    return _with_users(properties, config.spark.conf)


def _with_users(properties: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    joined = {
        name: f"{properties[name]}{sign}{users[name]}"
        for name, sign in _JOINED_BY.items()
        if name in properties and name in users
    }
    return {**properties, **users, **joined}


def _quiet_log_option() -> str:
    # Quoted, because Spark splits Java options at spaces.
    return f'"-Dlog4j2.configurationFile={_QUIET_LOG.as_uri()}"'


def _local_properties(python: str) -> dict[str, str]:
    return {
        "spark.pyspark.python": python,
        # Role hosts fork from it: what they import is imported once.
        "spark.python.daemon.module": _DAEMON,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "8",
    }


def _cluster_properties(config: JobConfig) -> dict[str, str]:
    resources = [each for _, each in role_resources(config).values()]
    cores = max(each.cores or 1 for each in resources)
    gpus = max(each.gpus for each in resources)
    gang = is_gang(config)
    properties = {
        **({} if gang else _DYNAMIC_ALLOCATION),
        # One role an executor: a role's task takes all of its cores.
        "spark.executor.cores": str(cores),
        "spark.task.cpus": str(cores),
    }
    if config.spark.deploy_mode == "cluster":
        properties.update(_CLUSTER_DRIVER)
    if gang:
        properties["spark.executor.instances"] = str(slots_needed(config))
    heap_mib, overhead_mib = divide_memory(
        max(each.memory or DEFAULT_MEMORY_BYTES for each in resources)
    )
    properties["spark.executor.memory"] = f"{heap_mib}m"
    properties["spark.executor.memoryOverhead"] = f"{overhead_mib}m"
    if gpus:
        # Where roles have profiles, these are for pre_train's own queries, which need no GPU; Spark
        # wants an amount told beside the discovery script.
        alike = gang or not allocates_dynamically(config.spark.conf, unset=True)
        properties["spark.executor.resource.gpu.amount"] = str(gpus if alike else 0)
        if alike:
            properties["spark.task.resource.gpu.amount"] = str(gpus)
        if config.spark.master.kind == "k8s":
            # With the resource's name it is what Kubernetes calls the device: nvidia.com/gpu.
            properties["spark.executor.resource.gpu.vendor"] = "nvidia.com"
    spec = config.spark.env
    if spec.kind == "docker":
        properties.update(environment_properties(spec, config.spark.master.kind))
    return properties


def _yarn_properties(spark: SparkConfig) -> dict[str, str]:
    ours = [TAG, CLUSTER_TAG] if spark.deploy_mode == "cluster" else [TAG]
    properties = {**_YARN_PROPERTIES, "spark.yarn.tags": ",".join([*ours, *spark.tags])}
    if spark.priority is not None:
        properties["spark.yarn.priority"] = str(spark.priority)
    if spark.deploy_mode == "cluster":
        properties["spark.yarn.submit.waitAppCompletion"] = str(spark.wait).lower()
    else:
        # A driver that is killed says nothing: that would count as success.
        properties["spark.yarn.am.clientModeTreatDisconnectAsFailed"] = "true"
    return properties


def describe_submission(config: JobConfig, command: list[str]) -> str:
    """Return the text of a dry run: configuration and pod templates as YAML, then the command.

    Values of secret Spark properties and of parameters named like secrets are replaced by
    ``(redacted)``.
    """
    document = config.model_dump(mode="json")
    for settings in (document["params"], document["spark"]["conf"]):
        for name in settings:
            if _SECRET.search(name):
                settings[name] = "(redacted)"
    lines = ["# The resolved configuration", yaml.safe_dump(document, sort_keys=False).rstrip()]
    if config.spark.master.kind == "k8s":
        for name, template in pod_templates(config.spark).items():
            text = yaml.safe_dump(template, sort_keys=False).rstrip()
            lines += ["", "---", f"# {name}, a file that the command names", text]
    lines += ["", *_notes(config), "# The command", _shell(command)]
    return "\n".join(lines) + "\n"


def _notes(config: JobConfig) -> list[str]:
    if is_gang(config) or not config.spark.master.in_containers:
        return []
    return [
        "# spark.executor.* below is for the largest role; each role's own cores, memory and GPUs",
        "# become a Spark resource profile when the run starts.",
    ]


def _shell(command: list[str]) -> str:
    """Quote a command for a shell: an option and its value to a line."""
    words = [shlex.quote(word) for word in command]
    lines, index = [words[0]], 1
    while index < len(words):
        takes_value = words[index].startswith("--") and words[index] != "--load-spark-defaults"
        step = 2 if takes_value else 1
        lines.append("  " + " ".join(words[index : index + step]))
        index += step
    return " \\\n".join(lines)
