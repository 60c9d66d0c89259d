"""What the text of a Spark master says, and the room that it has for roles."""

import pickle

import pytest

from tfos.config import SparkConfig
from tfos.errors import ConfigError, ExitCode, InsufficientExecutorsError
from tfos.master import Master


@pytest.mark.parametrize(
    ("master", "slots", "cpus", "resolved"),
    [
        ("local", 4, 2, "local[4]"),
        ("local", 1, 8, "local[8]"),
        ("local[*]", 9, 8, "local[9]"),
        ("local[*,4]", 3, 2, "local[3,4]"),
        ("local[4]", 4, 2, "local[4]"),
        ("local[4,2]", 4, 2, "local[4,2]"),
        ("local-cluster[2,2,1024]", 4, 2, "local-cluster[2,2,1024]"),
        (" yarn ", 400, 2, "yarn"),
        ("spark://a:7077,b:7077", 400, 2, "spark://a:7077,b:7077"),
        ("k8s://https://h:443", 400, 2, "k8s://https://h:443"),
    ],
)
def test_local_masters_get_room_for_every_role(master, slots, cpus, resolved):
    assert Master(master).with_room(slots, cpus=cpus) == resolved


@pytest.mark.parametrize(
    ("master", "resolved"),
    [
        ("local", "local[2,4]"),
        ("local[*]", "local[2,4]"),
        ("local[3]", "local[3,4]"),
        ("local[3,1]", "local[3,1]"),
        ("local[*,7]", "local[2,7]"),
        ("local-cluster[2,1,1024]", "local-cluster[2,1,1024]"),
        ("yarn", "yarn"),
    ],
)
def test_a_local_master_is_told_how_often_a_task_may_fail(master, resolved):
    assert Master(master).with_room(2, cpus=2, failures=4) == resolved


@pytest.mark.parametrize(
    ("master", "cpus_per_task", "available"),
    [
        ("local[3]", 1, 3),
        ("local[3,4]", 1, 3),
        ("local[6]", 2, 3),
        ("local-cluster[3,1,1024]", 1, 3),
        ("local-cluster[3,3,1024]", 2, 3),
    ],
)
def test_too_few_slots_are_refused_with_what_to_change(master, cpus_per_task, available):
    with pytest.raises(InsufficientExecutorsError) as caught:
        Master(master).with_room(4, cpus_per_task=cpus_per_task)
    error = caught.value
    assert (error.needed, error.available) == (4, available)
    assert error.exit_code == ExitCode.RESOURCES
    for word in ("4 roles", master, "--num-workers", "--num-ps"):
        assert word in str(error)


def test_local_has_room_for_tasks_of_several_cpus():
    assert Master("local").with_room(4, cpus=2, cpus_per_task=2) == "local[8]"


@pytest.mark.parametrize(
    "master", ["", "mesos://a:1", "local[x]", "local[]", "spark://a", "k8s://"]
)
def test_unknown_masters_are_refused(master):
    with pytest.raises(ConfigError, match=r"it should be local, .* or k8s://URL$"):
        Master(master)


@pytest.mark.parametrize(
    ("master", "kind", "is_local", "in_containers"),
    [
        ("local[*,4]", "local", True, False),
        ("local-cluster[2, 1, 1024]", "local-cluster", True, False),
        ("spark://a:7077,b:7077", "standalone", False, False),
        ("yarn", "yarn", False, True),
        ("k8s://https://h:443", "k8s", False, True),
    ],
)
def test_a_setting_is_parsed_and_stays_text(master, kind, is_local, in_containers):
    spark = SparkConfig(master=f" {master} ")
    assert spark.master.kind == kind
    assert (spark.master.is_local, spark.master.in_containers) == (is_local, in_containers)
    assert type(spark.model_dump()["master"]) is str
    assert spark.master == master
    again = SparkConfig.model_validate_json(spark.model_dump_json())
    assert again == spark
    assert again.master.kind == kind
    assert pickle.loads(pickle.dumps(spark)).master.kind == kind
