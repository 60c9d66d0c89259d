"""What is shipped to containers, and what the user's own Spark has there already."""

from __future__ import annotations

import venv
from dataclasses import replace

import pytest

from tfos.config import JobConfig
from tfos.environment_spec import parse_environment
from tfos.environments.inspection import inspect_environment
from tfos.environments.packing import PackedEnvironment
from tfos.launcher.submit import shipping
from tfos.launcher.submit.shipping import plan_shipping, ship


@pytest.fixture
def spark_home(tmp_path, monkeypatch):
    """A Spark of one small jar."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARK_CONF_DIR", raising=False)
    for name in ("home/jars", "home/conf", "site"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "jars" / "spark-core.jar").write_bytes(b"jar")
    return tmp_path / "home"


@pytest.fixture
def staging(tmp_path):
    return f"file://{tmp_path}/staging"


def shipped(spark_home, staging, **conf) -> dict[str, str]:
    config = JobConfig.model_validate({"spark": {"master": "yarn", "conf": conf}})
    return ship(config, spark_home, staging).spark.conf


def test_sparks_jars_are_uploaded_for_yarn(spark_home, staging, tmp_path):
    url = shipped(spark_home, staging)["spark.yarn.archive"]
    (archive,) = (tmp_path / "staging" / "spark-jars").iterdir()
    assert url == f"{staging}/spark-jars/{archive.name}"


@pytest.mark.parametrize("line", ["spark.yarn.jars  hdfs:///s/*", " spark.yarn.archive=hdfs:///z"])
@pytest.mark.parametrize("place", ["home/conf", "site"])
def test_not_where_sparks_configuration_names_them(
    spark_home, staging, tmp_path, monkeypatch, place, line
):
    (tmp_path / place / "spark-defaults.conf").write_text(f"# theirs\n{line}\n")
    if place == "site":
        monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "site"))
    assert shipped(spark_home, staging) == {}


def test_spark_reads_one_configuration_only(spark_home, staging, tmp_path, monkeypatch):
    (spark_home / "conf" / "spark-defaults.conf").write_text("spark.yarn.jars hdfs:///s/*\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "site"))
    assert "spark.yarn.archive" in shipped(spark_home, staging)


def test_not_where_the_user_names_them(spark_home, staging):
    own = {"spark.yarn.jars": "hdfs:///mine/*"}
    assert shipped(spark_home, staging, **own) == own


@pytest.mark.parametrize(("mode", "warns"), [("client", True), ("cluster", False)])
def test_a_driver_of_another_python_is_warned_of_where_it_runs_here(
    spark_home, staging, monkeypatch, caplog, tmp_path, mode, warns
):
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    spec = parse_environment(f"venv:{tmp_path}/venv")
    inspection = replace(inspect_environment(spec), version=(3, 9, 0))
    (tmp_path / "e.tar.gz").touch()
    packed = PackedEnvironment(tmp_path / "e.tar.gz", 0, inspection, is_new=True)
    monkeypatch.setattr(shipping, "pack", lambda *_: packed)
    spark = {"master": "yarn", "deploy_mode": mode, "env": str(spec)}
    ship(JobConfig.model_validate({"spark": spark}), spark_home, staging)
    assert ("has Python 3.9, the driver" in caplog.text) is warns
    assert "lacks tensorflow" in caplog.text


@pytest.mark.parametrize(
    ("env", "staging", "archive"),
    [
        ("venv:/e", "hdfs:///s/", "hdfs:///s/environments/ENVIRONMENT.tar.gz#environment"),
        ("conda:e", None, "STAGING/environments/ENVIRONMENT.tar.gz#environment"),
        ("archive:hdfs:///mine.zip", None, "hdfs:///mine.zip#environment"),
    ],
)
def test_a_plan_names_the_environment_and_makes_nothing(env, staging, archive):
    spark = {"master": "yarn", "env": env, "staging_dir": staging, "archives": ["x.zip#x"]}
    planned = plan_shipping(JobConfig.model_validate({"spark": spark}))
    assert planned.spark.conf["spark.yarn.dist.archives"] == f"x.zip#x,{archive}"
    assert planned.spark.archives == []


def test_a_plan_without_an_environment_changes_nothing():
    assert plan_shipping(JobConfig()) == JobConfig()
