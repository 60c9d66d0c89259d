"""What Spark is told of an environment, and which masters are refused."""

import pytest

from tfos.environment_spec import parse_environment
from tfos.environments.properties import check_environment, environment_properties
from tfos.errors import ConfigError

URL = "hdfs://nn:8020/envs/tfos-env-1.tar.gz"
PYTHON = "./environment/bin/python"


@pytest.mark.parametrize("text", ["venv:/opt/train", "conda:train"])
def test_on_yarn_containers_unpack_the_archive_and_run_its_python(text):
    assert environment_properties(parse_environment(text), "yarn", URL) == {
        "spark.yarn.dist.archives": f"{URL}#environment",
        "spark.pyspark.python": PYTHON,
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
        "spark.executorEnv.PYTHONNOUSERSITE": "1",
        "spark.yarn.appMasterEnv.PYTHONNOUSERSITE": "1",
    }


@pytest.mark.parametrize(
    ("kind", "driver"),
    [("k8s", {"spark.kubernetes.driverEnv.PYTHONNOUSERSITE": "1"}), ("standalone", {})],
)
def test_elsewhere_spark_itself_does(kind, driver):
    assert environment_properties(parse_environment("venv:/opt/train"), kind, URL) == {
        "spark.archives": f"{URL}#environment",
        "spark.pyspark.python": PYTHON,
        "spark.executorEnv.PYTHONNOUSERSITE": "1",
        **driver,
    }


def test_a_ready_archive_needs_no_other_url():
    properties = environment_properties(parse_environment(f"archive:{URL}"), "k8s")
    assert properties["spark.archives"] == f"{URL}#environment"


def test_a_copy_of_a_ready_archive_wins():
    spec = parse_environment("archive:/here/a.tgz")
    assert environment_properties(spec, "k8s", URL)["spark.archives"] == f"{URL}#environment"


@pytest.mark.parametrize(
    ("kind", "name"), [("yarn", "spark.yarn.dist.archives"), ("k8s", "spark.archives")]
)
def test_the_users_archives_stay(kind, name):
    spec = parse_environment("venv:/opt/train")
    properties = environment_properties(spec, kind, URL, archives=["a.zip#words", "b.tgz"])
    assert properties[name] == f"a.zip#words,b.tgz,{URL}#environment"


def test_an_image_on_yarn_is_for_executors_and_application_masters():
    assert environment_properties(parse_environment("docker:train:2"), "yarn") == {
        "spark.pyspark.python": "python3",
        "spark.executorEnv.YARN_CONTAINER_RUNTIME_TYPE": "docker",
        "spark.executorEnv.YARN_CONTAINER_RUNTIME_DOCKER_IMAGE": "train:2",
        "spark.yarn.appMasterEnv.YARN_CONTAINER_RUNTIME_TYPE": "docker",
        "spark.yarn.appMasterEnv.YARN_CONTAINER_RUNTIME_DOCKER_IMAGE": "train:2",
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON": "python3",
    }


def test_an_image_on_kubernetes():
    assert environment_properties(parse_environment("docker:train:2"), "k8s") == {
        "spark.kubernetes.container.image": "train:2",
        "spark.pyspark.python": "python3",
    }


@pytest.mark.parametrize("kind", ["local", "local-cluster", "standalone", "yarn", "k8s"])
def test_none_says_nothing(kind):
    assert environment_properties(parse_environment("none"), kind) == {}


@pytest.mark.parametrize("kind", ["local", "local-cluster"])
@pytest.mark.parametrize("text", ["venv:/a", "conda:a", "archive:/a.zip", "docker:a"])
def test_executors_on_this_machine_are_given_none(kind, text):
    with pytest.raises(ConfigError, match=rf"--env {text} .* --master {kind} .* --env none"):
        check_environment(parse_environment(text), kind)


def test_a_standalone_master_has_no_images():
    with pytest.raises(ConfigError, match=r"--env docker:a: a standalone master .*--env venv:"):
        environment_properties(parse_environment("docker:a"), "standalone")


def test_what_has_to_be_packed_needs_a_url():
    with pytest.raises(ConfigError, match="--env venv:/a has to be packed"):
        environment_properties(parse_environment("venv:/a"), "yarn")
