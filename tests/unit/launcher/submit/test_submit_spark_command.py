"""The spark-submit command, its properties and the text of a dry run."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from tfos.config import JobConfig
from tfos.errors import ConfigError, InsufficientExecutorsError
from tfos.launcher.platform.role_memory import divide_memory
from tfos.launcher.platform.spark_security import unprotected, with_drawn_secret
from tfos.launcher.submit.client import submit
from tfos.launcher.submit.prerequisites import check_gpus
from tfos.launcher.submit.spark_command import (
    DRIVER_SCRIPT,
    describe_submission,
    secret_properties,
    shipped_with,
    spark_properties,
    spark_submit_command,
)
from tfos.master import Master

HOME = Path("/opt/spark")
SECRETS = {"spark.authenticate.secret": "s3cr3t", "spark.hadoop.fs.s3a.access.key": "k3y"}


def config(**settings) -> JobConfig:
    return JobConfig.model_validate(settings)


def command(given: JobConfig, **more) -> list[str]:
    return spark_submit_command(given, "/run/s.json", spark_home=HOME, python="/py", **more)


def confs(words: list[str]) -> dict[str, str]:
    pairs = [words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--conf"]
    assert len(pairs) == len({name for name, _ in pairs})
    return dict(pairs)


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_the_command_runs_the_driver_with_the_submission():
    words = command(config(name="fm", arch="ps", spark={"master": "local[8]"}))
    assert words[0] == "/opt/spark/bin/spark-submit"
    assert words[-2:] == [str(DRIVER_SCRIPT), "/run/s.json"]
    assert DRIVER_SCRIPT.name == "driver_script.py"
    assert (after(words, "--master"), after(words, "--name")) == ("local[8,4]", "fm")
    assert after(words, "--deploy-mode") == "client"
    assert "--queue" not in words
    assert "--properties-file" not in words


def test_the_name_falls_back_to_the_applications():
    assert after(command(config(), default_name="app"), "--name") == "app"


def test_too_few_slots_are_found_before_anything_starts():
    with pytest.raises(InsufficientExecutorsError):
        command(config(arch="ps", spark={"master": "local[3]"}))


def test_cpus_of_a_task_count():
    given = {"arch": "ps", "spark": {"master": "local[6]", "conf": {"spark.task.cpus": "2"}}}
    with pytest.raises(InsufficientExecutorsError):
        command(config(**given))
    given["spark"]["conf"]["spark.task.cpus"] = "two"
    with pytest.raises(ConfigError, match=r"spark\.task\.cpus is 'two'"):
        command(config(**given))


def test_shipped_files_are_joined_by_commas():
    words = command(
        config(spark={"py_files": ["a.py", "b.zip"], "files": ["f"], "archives": ["x.tgz#x"]})
    )
    assert after(words, "--py-files") == "a.py,b.zip"
    assert after(words, "--files") == "f"
    assert after(words, "--archives") == "x.tgz#x"


def test_a_driver_in_the_cluster_is_shipped_what_it_needs():
    spark = {"master": "yarn", "deploy_mode": "cluster", "files": ["f"], "archives": ["x.zip#x"]}
    words = command(shipped_with(config(spark=spark), "/r/s.json", "/r/a.zip"))
    assert after(words, "--files") == "f,/r/s.json"
    assert after(words, "--archives") == "x.zip#x,/r/a.zip#tfos-application"


def test_what_is_shipped_does_not_replace_an_environment():
    # Spark lets its option --archives replace the property.
    spark = {"conf": {"spark.archives": "e.tgz#environment"}, "archives": ["x.zip#x"]}
    words = command(shipped_with(config(spark=spark), "/r/s.json", "/r/a.zip"))
    assert "--archives" not in words
    listed = "e.tgz#environment,x.zip#x,/r/a.zip#tfos-application"
    assert confs(words)["spark.archives"] == listed


def test_properties_of_a_local_run():
    properties = spark_properties(config(feed={"batch_rows": 77}), python="/py")
    assert properties["spark.sql.execution.arrow.maxRecordsPerBatch"] == "77"
    assert properties["spark.pyspark.python"] == "/py"
    assert properties["spark.driver.bindAddress"] == "127.0.0.1"
    assert importlib.util.find_spec(properties["spark.python.daemon.module"]) is not None
    assert properties["spark.speculation"] == "false"
    assert "log4j2-quiet.properties" in properties["spark.driver.extraJavaOptions"]
    assert "spark.executor.extraJavaOptions" not in properties


@pytest.mark.parametrize("master", ["local[8]", "local-cluster[4,1,1024]", "spark://h:7077"])
@pytest.mark.parametrize("restarts", [0, 1, 3])
def test_spark_runs_a_lost_role_again_as_often_as_restarts_are_allowed(master, restarts):
    given = config(arch="ps", spark={"master": master}, supervision={"max_restarts": restarts})
    words = command(given)
    assert confs(words)["spark.task.maxFailures"] == str(restarts + 1)
    # A local master heeds its own limit alone.
    expected = f"local[8,{restarts + 1}]" if master == "local[8]" else master
    assert after(words, "--master") == expected


@pytest.mark.parametrize("master", ["local[8]", "spark://h:7077", "yarn", "k8s://https://h"])
def test_who_reaches_sparks_web_interface_cannot_end_a_run(master):
    spark = {"master": master}
    assert spark_properties(config(spark=spark))["spark.ui.killEnabled"] == "false"


def test_executors_of_a_local_cluster_are_quiet():
    properties = spark_properties(config(spark={"master": "local-cluster[2,1,1024]"}))
    assert "log4j2-quiet" in properties["spark.executor.extraJavaOptions"]


def test_a_real_cluster_is_given_no_path_of_this_machine_for_its_executors():
    properties = spark_properties(config(spark={"master": "spark://h:7077"}), python="/py")
    assert "spark.pyspark.python" not in properties
    assert "spark.driver.host" not in properties
    assert "spark.executor.extraJavaOptions" not in properties


def test_the_users_properties_win_and_java_options_are_joined():
    users = {
        "spark.speculation": "true",
        "spark.ui.enabled": "true",
        "spark.driver.extraJavaOptions": "-Xss4m",
        "spark.executor.extraJavaOptions": "-Xss8m",
    }
    words = confs(command(config(spark={"conf": users})))
    assert words["spark.speculation"] == words["spark.ui.enabled"] == "true"
    assert words["spark.driver.extraJavaOptions"].startswith('"-Dlog4j2')
    assert words["spark.driver.extraJavaOptions"].endswith(" -Xss4m")
    assert words["spark.executor.extraJavaOptions"] == "-Xss8m"


def test_the_tags_that_runs_are_found_by_stay_beside_the_users():
    spark = {"master": "yarn", "tags": ["a"], "conf": {"spark.yarn.tags": "b,c"}}
    assert spark_properties(config(spark=spark))["spark.yarn.tags"] == "tfos,a,b,c"


def test_roles_memory_is_divided_into_heap_and_overhead():
    roles = {"worker": {"memory": "4g", "cores": 3}, "ps": {"memory": "8g"}}
    given = config(arch="ps", roles=roles, spark={"master": "yarn", "queue": "q"})
    words = command(given)
    properties = confs(words)
    assert after(words, "--queue") == "q"
    assert properties["spark.executor.memory"] == "2048m"
    assert properties["spark.executor.memoryOverhead"] == "6144m"
    assert properties["spark.executor.cores"] == properties["spark.task.cpus"] == "3"


def test_small_memory_still_has_a_heap_and_unset_memory_is_enough_for_tensorflow():
    def memory_of(**worker):
        properties = spark_properties(
            config(arch="ps", roles={"worker": worker}, spark={"master": "yarn"})
        )
        return properties.get("spark.executor.memory"), properties.get(
            "spark.executor.memoryOverhead"
        )

    # The application's own executors are as large as the largest role: here those not told.
    assert memory_of(memory="1536m") == memory_of() == ("1024m", "3072m")
    assert divide_memory(1536 << 20) == (512, 1024)
    assert divide_memory(256 << 20) == (256, 0)


def test_the_image_of_a_docker_environment():
    given = config(spark={"master": "k8s://https://h", "env": "docker:a/b:1"})
    assert spark_properties(given)["spark.kubernetes.container.image"] == "a/b:1"


@pytest.mark.parametrize(
    ("arch", "conf", "executor", "task"),
    [
        ("ps", {}, "0", None),
        ("ps", {"spark.dynamicAllocation.enabled": "false"}, "2", "2"),
        ("ring", {}, "2", "2"),
    ],
)
def test_gpus_belong_to_executors_all_alike_or_to_profiles(arch, conf, executor, task):
    given = config(arch=arch, roles={"worker": {"gpus": 2}}, spark={"master": "yarn", "conf": conf})
    properties = spark_properties(given)
    assert properties["spark.executor.resource.gpu.amount"] == executor
    assert properties.get("spark.task.resource.gpu.amount") == task


@pytest.mark.parametrize(
    "name", ["spark.executor.resource.gpu.discoveryScript", "spark.resources.discoveryPlugin"]
)
@pytest.mark.parametrize("sign", [" ", "="])
def test_gpus_need_a_script_that_finds_them(tmp_path, name, sign):
    roles = {"worker": {"gpus": 1}}
    given = config(arch="ps", roles=roles, spark={"master": "yarn"})
    environ = {"SPARK_CONF_DIR": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"--worker-gpus needs a script.*discoveryScript=PATH"):
        check_gpus(given, tmp_path, environ)
    check_gpus(
        config(arch="ps", roles=roles, spark={"master": "yarn", "conf": {name: "/x"}}),
        tmp_path,
        environ,
    )
    (tmp_path / "spark-defaults.conf").write_text(f"spark.a b\n  {name}{sign}/x\n")
    check_gpus(given, tmp_path, environ)


def test_a_dry_run_refuses_what_a_run_would(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    (tmp_path / "app.py").write_text("from jobs import *")
    given = config(arch="ps", roles={"worker": {"gpus": 1}}, spark={"master": "yarn"})
    with pytest.raises(ConfigError, match="--worker-gpus needs a script"):
        submit(given, str(tmp_path / "app.py"), dry_run=True)


def test_secrets_are_in_no_argument():
    given = config(spark={"conf": {**SECRETS, "spark.a": "b"}})
    assert secret_properties(given) == SECRETS
    words = command(given, properties_file="/run/secrets.conf")
    assert after(words, "--properties-file") == "/run/secrets.conf"
    assert "--load-spark-defaults" in words
    assert not [word for word in words if "s3cr3t" in word or "k3y" in word]
    assert confs(words)["spark.a"] == "b"


def test_a_dry_run_shows_everything_but_secrets():
    given = config(params={"api_token": "t0k", "dim": "8"}, spark={"conf": SECRETS})
    text = describe_submission(given, command(given, properties_file="P"))
    assert not [secret for secret in ("s3cr3t", "k3y", "t0k") if secret in text]
    shown = yaml.safe_load(text.partition("# The command")[0])
    assert shown["params"] == {"api_token": "(redacted)", "dim": "8"}
    assert JobConfig.model_validate(shown).roles == given.roles
    assert "spark.executor.*" not in text


def test_a_dry_run_is_a_command_a_shell_can_read():
    import shlex

    given = config(name="x", params={"a": "it's"}, spark={"master": "yarn"})
    words = command(given)
    text = describe_submission(given, words)
    assert shlex.split(text.partition("# The command\n")[2].replace("\\\n", " ")) == words
    assert "# spark.executor.* below is for the largest role" in text


RING = {"arch": "ring", "roles": {"num_workers": 3, "worker": {"cores": 2, "memory": "4g"}}}


@pytest.mark.parametrize("master", ["yarn", "k8s://https://h"])
def test_a_ring_has_its_executors_from_the_start_and_keeps_them(master):
    found = spark_properties(config(**RING, spark={"master": master}))
    assert found["spark.executor.instances"] == "3"
    allocation = {name: v for name, v in found.items() if "dynamicAllocation" in name}
    assert allocation == {"spark.dynamicAllocation.enabled": "false"}
    assert (found["spark.executor.cores"], found["spark.task.cpus"]) == ("2", "2")
    text = describe_submission(config(**RING, spark={"master": master}), ["x"])
    assert "resource profile" not in text


def test_a_rings_settings_are_no_others_and_give_way_to_the_users():
    barrier = "spark.scheduler.barrier.maxConcurrentTasksCheck.interval"
    ring = {"arch": "ring", "spark": {"master": "spark://h:1"}}
    found = spark_properties(config(**ring))
    assert (found[barrier], found["spark.dynamicAllocation.enabled"]) == ("1s", "false")
    assert "spark.executor.instances" not in found
    assert barrier not in spark_properties(config(arch="ps"))
    ring["spark"]["conf"] = {barrier: "3s"}
    assert spark_properties(config(**ring))[barrier] == "3s"


ENCRYPTED = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.io.encryption.enabled": "true",
}


@pytest.mark.parametrize("master", ["local", "yarn", "k8s://https://h"])
def test_encryption_is_three_properties_and_off_by_default(master):
    given = confs(command(config(spark={"master": master, "encrypt": True})))
    assert {name: given[name] for name in ENCRYPTED} == ENCRYPTED
    assert ENCRYPTED.keys().isdisjoint(confs(command(config(spark={"master": master}))))


CLUSTER = "local-cluster[1,1,1024]"


def test_a_cluster_on_this_machine_authenticates_by_a_secret_of_its_own():
    spark = config(spark={"master": CLUSTER}).spark
    drawn = [with_drawn_secret(spark) for _ in range(2)]
    assert drawn[0].conf["spark.authenticate.secret"] != drawn[1].conf["spark.authenticate.secret"]
    words = command(config(spark=drawn[0].model_dump()), properties_file="/run/secrets.conf")
    assert confs(words)["spark.authenticate"] == "true"
    assert not [word for word in words if drawn[0].conf["spark.authenticate.secret"] in word]
    assert "spark.network.crypto.enabled" not in confs(words)


@pytest.mark.parametrize(
    ("master", "conf"),
    [
        ("local[2]", {}),
        ("yarn", {}),
        ("spark://h:1", {}),
        (CLUSTER, {"spark.authenticate": "false"}),
        (CLUSTER, {"spark.authenticate.secret": "mine"}),
    ],
)
def test_elsewhere_and_against_the_users_wish_no_secret_is_drawn(master, conf):
    spark = config(spark={"master": master, "conf": conf}).spark
    assert with_drawn_secret(spark) == spark
    found = spark_properties(config(spark={"master": master, "conf": conf}))
    assert found.get("spark.authenticate") == conf.get(
        "spark.authenticate", "true" if master == CLUSTER else None
    )


def test_the_secret_of_an_encrypted_standalone_run_is_in_no_argument():
    spark = {"master": "spark://h:1", "encrypt": True, "conf": SECRETS}
    words = command(config(spark=spark), properties_file="/run/secrets.conf")
    assert ENCRYPTED.items() <= confs(words).items()
    assert not [word for word in words if "s3cr3t" in word]


def test_a_kerberos_login_is_sparks():
    spark = {"master": "yarn", "principal": "u@R", "keytab": "/k"}
    given = confs(command(config(spark=spark)))
    assert given["spark.kerberos.principal"] == "u@R"
    assert given["spark.kerberos.keytab"] == "/k"
    assert not [name for name in confs(command(config())) if "kerberos" in name]


@pytest.mark.parametrize(
    ("master", "properties", "warned"),
    [
        ("yarn", {}, True),
        ("k8s://h", {"spark.authenticate": "false"}, True),
        ("spark://h:1", {"spark.authenticate": "false"}, True),
        ("yarn", {"spark.authenticate": "true"}, False),
        ("spark://h:1", {"spark.authenticate": " TRUE"}, False),
        ("local", {}, False),
        (CLUSTER, {}, False),
    ],
)
def test_open_connections_of_a_cluster_are_told(master, properties, warned):
    warning = unprotected(Master(master), properties)
    assert (warning is not None) is warned
    assert warning is None or "--encrypt" in warning
