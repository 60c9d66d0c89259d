"""What a submission is refused for, and the slots that it asks for."""

from pathlib import Path
from typing import Literal, get_origin

import pytest

from tfos import wire
from tfos.config import LOCATION, JobConfig
from tfos.config_files import known_settings
from tfos.errors import ConfigError
from tfos.fault.processes.identity import ProcessIdentity
from tfos.launcher.handover.submission import Submission
from tfos.launcher.platform.checks import check_supported
from tfos.launcher.platform.paths import resolve_paths
from tfos.launcher.platform.role_tasks import slots_needed


def config(**settings) -> JobConfig:
    return JobConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "slots"),
    [
        ({}, 1),
        ({"arch": "local", "roles": {"num_ps": 9, "num_workers": 9}}, 1),
        ({"arch": "ps"}, 4),
        ({"arch": "ps", "roles": {"num_ps": 3, "num_workers": 5}}, 9),
        ({"arch": "session", "roles": {"num_ps": 1, "num_workers": 1}}, 3),
        ({"arch": "ring", "roles": {"num_workers": 3}}, 3),
    ],
)
def test_slots_needed(settings, slots):
    assert slots_needed(config(**settings)) == slots


REFUSED = [
    (
        {"arch": "ring", "spark": {"conf": {"spark.dynamicAllocation.enabled": "True"}}},
        "--arch ring cannot have spark.dynamicAllocation.enabled=true",
    ),
    (
        {"arch": "ring", "roles": {"chief": {"cores": 2}}},
        "--chief-cores means nothing to --arch ring, which has no chief: use --worker-cores",
    ),
    ({"arch": "ring", "roles": {"ps": {"memory": "1g"}}}, "--ps-memory means nothing to --arch"),
    (
        {"arch": "ring", "supervision": {"inject": ["kill:chief-0@feed"]}},
        "--inject kill:chief-0@feed: this run has no chief-0; it has 2 worker",
    ),
    (
        {"supervision": {"inject": ["kill:worker-0@step=9"]}},
        "--inject kill:worker-0@step=9: this run has no worker-0; it has 1 chief",
    ),
    (
        {"arch": "ps", "supervision": {"inject": ["stop:ps-0@feed", "stop:worker-2@feed"]}},
        "--inject stop:worker-2@feed: this run has no worker-2; it has 1 chief, 2 workers, "
        "1 parameter server",
    ),
    (
        {
            "registry": {"zookeeper": "h:2181"},
            "supervision": {"inject": ["kill:zookeeper@feed"]},
        },
        "--inject kill:zookeeper@feed: tfos did not start that ZooKeeper",
    ),
    ({"supervision": {"inject": ["fry:chief-0@feed"]}}, "--inject 'fry:chief-0@feed': ACTION"),
    (
        {"spark": {"master": "yarn"}, "arch": "ps", "roles": {"ps": {"memory": "512m"}}},
        "--ps-memory 512m is too little",
    ),
    ({"spark": {"master": "k8s://https://h"}}, "--master k8s://https://h runs images only"),
    (
        {"spark": {"master": "k8s://https://h", "env": "docker:i"}},
        "running on Kubernetes is not available",
    ),
    ({"spark": {"master": "k8s://https://h", "queue": "q"}}, "--queue is YARN's"),
    ({"spark": {"master": "k8s://https://h", "tags": ["a"]}}, "--tags is YARN's"),
    ({"spark": {"master": "k8s://https://h", "priority": 1}}, "--priority is YARN's"),
    (
        {"spark": {"master": "spark://h:1", "deploy_mode": "cluster"}},
        "--deploy-mode cluster on spark://h:1 is not available",
    ),
    ({"spark": {"deploy_mode": "cluster"}}, "--deploy-mode cluster needs a cluster"),
    ({"spark": {"queue": "q"}}, "--queue is YARN's"),
    ({"spark": {"wait": False, "master": "yarn"}}, "--no-wait needs --deploy-mode cluster"),
    (
        {
            "spark": {"wait": False, "master": "yarn", "deploy_mode": "cluster"},
            "result_json": "r.json",
        },
        "--no-wait ends before there is a record: leave --result-json out",
    ),
    ({"spark": {"tags": ["a"]}}, "--tags is YARN's"),
    ({"spark": {"env": "docker:i"}}, "--env docker:i is for executors on other hosts"),
    (
        {"roles": {"worker": {"memory": "1g"}}},
        "--worker-memory needs YARN or Kubernetes: on local every role lives in executors of one "
        "size; use --spark-conf spark.executor.memory",
    ),
    (
        {"spark": {"master": "local-cluster[4,1,1024]"}, "roles": {"ps": {"memory": "1g"}}},
        "--ps-memory needs YARN",
    ),
    (
        {"spark": {"master": "spark://h:1"}, "roles": {"chief": {"memory": "1g"}}},
        "--chief-memory needs YARN",
    ),
    ({"roles": {"worker": {"gpus": 1}}}, "--worker-gpus needs YARN"),
    (
        {"spark": {"encrypt": True, "conf": {"spark.authenticate": "False"}}},
        "--encrypt cannot have spark.authenticate=False: leave one of them out",
    ),
    (
        {"spark": {"encrypt": True, "conf": {"spark.io.encryption.enabled": "no"}}},
        "--encrypt cannot have spark.io.encryption.enabled=no",
    ),
    (
        {"spark": {"encrypt": True, "master": "spark://h:1"}},
        "--encrypt needs spark.authenticate.secret with --master spark://h:1, the one its master "
        "and workers have: set it below spark.conf of a --conf FILE",
    ),
    ({"spark": {"principal": "u@R"}}, "--principal needs --keytab"),
    ({"spark": {"keytab": "/k"}}, "--keytab needs --principal"),
    (
        {"spark": {"principal": "u@R", "keytab": "/k", "master": "spark://h:1"}},
        "--principal means nothing to --master spark://h:1",
    ),
]


@pytest.mark.parametrize(("settings", "says"), REFUSED)
def test_what_cannot_be_done_is_refused_not_ignored(settings, says):
    with pytest.raises(ConfigError) as caught:
        check_supported(config(**settings))
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"arch": "ps"},
        {"supervision": {"max_restarts": 0}},
        {"supervision": {"max_restarts": 9}},
        {"arch": "ps", "supervision": {"inject": ["kill:worker-1@step=9", "stop:driver@feed"]}},
        {"supervision": {"inject": ["kill:zookeeper@feed"]}},
        {"arch": "session", "roles": {"worker": {"cores": 2}}},
        {"arch": "ring", "roles": {"worker": {"cores": 2}}},
        {"arch": "ring", "spark": {"conf": {"spark.dynamicAllocation.enabled": "false"}}},
        {"spark": {"master": "local-cluster[4,1,1024]"}},
        {"spark": {"master": "spark://h:7077"}},
        {"spark": {"master": "yarn"}, "roles": {"worker": {"memory": "2g", "gpus": 1}}},
        {"spark": {"encrypt": True}},
        {"spark": {"encrypt": True, "conf": {"spark.authenticate": "true"}}},
        {"spark": {"encrypt": True, "master": "local-cluster[1,1,1024]"}},
        {
            "spark": {
                "encrypt": True,
                "master": "spark://h:7077",
                "conf": {"spark.authenticate.secret": "s"},
            }
        },
        {"spark": {"principal": "u@R", "keytab": "/k"}},
        {"spark": {"master": "yarn", "encrypt": True, "principal": "u@R", "keytab": "/k"}},
        {"spark": {"master": "yarn", "deploy_mode": "cluster", "wait": False, "priority": 3}},
    ],
)
def test_what_can_be_done_passes(settings):
    check_supported(config(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"spark": {"master": "k8s://https://h", "env": "docker:i"}},
        {"spark": {"master": "k8s://https://h", "env": "docker:i", "encrypt": True}},
    ],
)
def test_a_dry_run_may_plan_what_cannot_run_yet(settings):
    check_supported(config(**settings), dry_run=True)
    with pytest.raises(ConfigError, match="not available"):
        check_supported(config(**settings))


def test_a_dry_run_refuses_what_makes_no_sense():
    ring = {"arch": "ring", "roles": {"ps": {"cores": 1}}}
    for settings in (ring, {"spark": {"queue": "q"}}):
        with pytest.raises(ConfigError):
            check_supported(config(**settings), dry_run=True)


def test_relative_paths_start_from_the_directory_and_urls_stay():
    resolved = resolve_paths(
        config(
            checkpoints={"dir": "ck/x"},
            model_dir="s3://b/m",
            result_json="../r.json",
            feed={"spool_dir": "/abs"},
            spark={"principal": "u@R", "keytab": "u.keytab"},
        ),
        "/srv/dir",
    )
    assert resolved.checkpoints.dir == "/srv/dir/ck/x"
    assert resolved.model_dir == "s3://b/m"
    assert resolved.result_json == "/srv/r.json"
    assert resolved.feed.spool_dir == "/abs"
    assert resolved.spark.keytab == "/srv/dir/u.keytab"
    assert resolve_paths(config(), "/x") == config()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("staging", "/srv/staging"),
        ("~/staging", "/home/me/staging"),
        ("file:staging", "/srv/staging"),
        ("file://staging", "/srv/staging"),
        ("file:/staging", "file:/staging"),
        ("file:///staging", "file:///staging"),
        ("hdfs:staging", "hdfs:staging"),
    ],
)
def test_files_of_this_machine_are_the_same_from_any_directory(monkeypatch, given, meant):
    monkeypatch.setenv("HOME", "/home/me")
    settings = {"checkpoints": {"dir": given}, "spark": {"staging_dir": given}}
    resolved = resolve_paths(config(**settings), "/srv")
    assert resolved.checkpoints.dir == resolved.spark.staging_dir == meant


def test_every_setting_that_holds_a_path_is_resolved():
    """Each text setting is a location or known to be none: a new one has to choose."""
    others = {
        *("name", "arch", "keras", "log_level", "spark.deploy_mode", "spark.queue"),
        *("spark.principal", "registry.zookeeper", "feed.nulls"),
    }
    texts = {
        path
        for path in known_settings()
        if _setting(JobConfig, path).annotation in (str, str | None)
        or get_origin(_setting(JobConfig, path).annotation) is Literal
    }
    locations = {p for p in texts if LOCATION in _setting(JobConfig, p).metadata}
    assert texts == locations | others
    given = {}
    for path in locations:
        *parents, last = path.split(".")
        section = given
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = Path("x")
    given["spark"]["principal"] = "u@R"
    resolved = resolve_paths(config(**given), "/srv")
    assert {path: _setting(resolved, path) for path in locations} == dict.fromkeys(
        locations, "/srv/x"
    )
    assert resolve_paths(resolved, "/other") == resolved


def _setting(of, path):
    """Return the value of a dotted setting, or its field where `of` is the model itself."""
    *parents, last = path.split(".")
    for parent in parents:
        of = of.model_fields[parent].annotation if isinstance(of, type) else getattr(of, parent)
    return of.model_fields[last] if isinstance(of, type) else getattr(of, last)


def test_submission_round_trip():
    given = config(arch="ps", params={"a": "b"})
    submission = Submission(
        "/a.py",
        None,
        given,
        "/p",
        "/r",
        "/z",
        submitted_at=2.5,
        client=ProcessIdentity.here({}),
    )
    read = wire.from_json(Submission, wire.to_json(submission))
    assert read == submission
