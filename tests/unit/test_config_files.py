"""Layers, unknown settings and messages of `tfos.config_files`."""

from pathlib import Path

import pytest

from tfos.config import JobConfig, RolesConfig
from tfos.config_files import configuration_directory, known_settings, load, with_options
from tfos.errors import ConfigError
from tfos.option_names import SETTING_OF_RUN_OPTION, RunOptions, default_text

NOWHERE: dict[str, str] = {}


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write_file


@pytest.fixture(autouse=True)
def no_home_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def refusal(**layers) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ=layers.pop("environ", NOWHERE), **layers)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_is_the_defaults():
    assert load(environ=NOWHERE) == JobConfig()


def test_precedence_directory_then_files_then_command_line(write, tmp_path):
    write("d/a.yaml", "arch: ps\nname: a\nroles: {num_ps: 3, num_workers: 3}\nmodel_dir: /a\n")
    write("d/b.yaml", "name: b\nroles: {num_workers: 4}\n")
    one = write("one.yaml", "name: one\nroles: {num_ps: 7}\nfeed: {batch_rows: 8}\n")
    two = write("two.yaml", "name: two\n")
    config = load(
        conf_files=[one, two],
        overrides={"feed.batch_rows": 9},
        environ={"TFOS_CONF_DIR": str(tmp_path / "d")},
    )
    assert (config.arch, config.model_dir) == ("ps", "/a")
    assert (config.roles.num_ps, config.roles.num_workers) == (7, 4)
    assert (config.name, config.feed.batch_rows) == ("two", 9)


def test_mappings_merge_and_lists_are_replaced(write):
    one = write("one.yaml", "params: {a: 1, b: 2}\nspark: {files: [x, y]}\n")
    two = write("two.yaml", "params: {b: 3}\nspark: {files: [z]}\n")
    config = load(conf_files=[one, two], overrides={"params": {"c": "4"}}, environ=NOWHERE)
    assert config.params == {"a": "1", "b": "3", "c": "4"}
    assert config.spark.files == ["z"]


def test_a_file_is_not_changed_by_a_later_layer(write):
    base = write("base.yaml", "spark: {conf: {a: x}}\n")
    load(conf_files=[base], overrides={"spark.conf": {"a": "y"}}, environ=NOWHERE)
    assert load(conf_files=[base], environ=NOWHERE).spark.conf == {"a": "x"}


def test_dotted_names_and_empty_sections_are_understood(write):
    file = write("c.yaml", "roles.num_ps: 5\nroles.worker: {cores: 2}\nfeed:\n")
    config = load(conf_files=[file], environ=NOWHERE)
    assert (config.roles.num_ps, config.roles.worker.cores) == (5, 2)


def test_spark_properties_become_text(write):
    file = write("c.yaml", "spark: {conf: {spark.a: false, spark.b: 3, spark.c: 2g}}\n")
    conf = load(conf_files=[file], environ=NOWHERE).spark.conf
    assert conf == {"spark.a": "false", "spark.b": "3", "spark.c": "2g"}


@pytest.mark.parametrize(
    ("text", "path", "nearest"),
    [
        ("checkpoint: {dir: /x}", "checkpoint.dir", "checkpoints.dir"),
        ("num_ps: 3", "num_ps", "roles.num_ps"),
        ("roles: {worker: {core: 3}}", "roles.worker.core", "roles.worker.cores"),
        ("feed: {batch_row: 3}", "feed.batch_row", "feed.batch_rows"),
        ("timeout: 3", "timeout", "supervision.timeout_s"),
    ],
)
def test_unknown_setting_names_file_path_and_nearest(write, text, path, nearest):
    file = write("x.yaml", text)
    message = refusal(conf_files=[file])
    assert message == f"{file}: {path} is not a setting; did you mean {nearest}?"


def test_unknown_setting_like_no_other(write):
    message = refusal(conf_files=[write("x.yaml", "qqq: 1")])
    assert message.endswith("qqq is not a setting; docs/configuration.md lists the settings")


def test_every_unknown_setting_is_told_at_once(write):
    message = refusal(conf_files=[write("x.yaml", "num_ps: 1\nfeed: {bath_rows: 2}\n")])
    assert "roles.num_ps" in message
    assert "feed.batch_rows" in message


@pytest.mark.parametrize(
    ("text", "path", "shown", "rule"),
    [
        ("arch: pss", "arch", "'pss'", "it should be 'local', 'plain', 'ps', 'ring' or 'session'"),
        ("roles: {num_workers: 0}", "roles.num_workers", "0", "greater than or equal to 1"),
        ("roles: {num_workers: two}", "roles.num_workers", "'two'", "a valid integer"),
        ("roles: {ps: {memory: lots}}", "roles.ps.memory", "'lots'", "such as 512m or 1.5g"),
        ("supervision: {timeout_s: soon}", "supervision.timeout_s", "'soon'", "15m or 2h"),
        ("name: 'a b'", "name", "'a b'", "letters, digits"),
        ("roles: 3", "roles", "3", "it should be a valid dictionary"),
        ("spark: {conf: [a]}", "spark.conf", "['a']", "it should be a valid dictionary"),
    ],
)
def test_wrong_value_names_source_setting_value_and_rule(write, text, path, shown, rule):
    file = write("x.yaml", text)
    message = refusal(conf_files=[file])
    assert message.startswith(f"{file}: {path} is {shown}: ")
    assert rule in message


def test_wrong_value_is_blamed_on_the_layer_that_set_it(write):
    good, bad = write("good.yaml", "arch: ps"), write("bad.yaml", "arch: pss")
    assert load(conf_files=[bad, good], environ=NOWHERE).arch == "ps"
    assert refusal(conf_files=[good, bad]).startswith(f"{bad}: arch")
    assert refusal(
        conf_files=[bad],
        overrides={"arch": "psss"},
        option_names={"arch": "--arch"},
    ).startswith("--arch: arch is 'psss'")


def test_several_wrong_values_say_how_many_more(write):
    file = write("x.yaml", "arch: pss\nlog_level: loud\n")
    assert refusal(conf_files=[file]).endswith("(and 1 more wrong)")


def test_long_values_are_cut(write):
    message = refusal(conf_files=[write("x.yaml", f"arch: {'z' * 5000}")])
    assert len(message) < 400


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("arch: ps\nname: a: b\n", ", line 2, column 8"),
        ("arch: ps\nname: x\narch: local\n", ", line 3, column 1: arch is set twice"),
        ("feed: {nulls: zero\n", ", line 2, column 1"),
        ("- a\n- b\n", ": expected settings (name: value), found ['a', 'b']"),
    ],
)
def test_bad_yaml_says_where(write, text, where):
    file = write("x.yaml", text)
    assert refusal(conf_files=[file]).startswith(f"{file}{where}")


def test_unreadable_files_are_named(tmp_path, write):
    assert str(tmp_path / "none.yaml") in refusal(conf_files=[tmp_path / "none.yaml"])
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80abc: 1")
    assert str(binary) in refusal(conf_files=[binary])


def test_yaml_cannot_build_objects(write):
    file = write("x.yaml", "name: !!python/object/apply:os.system [true]\n")
    assert "could not determine a constructor" in refusal(conf_files=[file])


def test_configuration_directory(tmp_path):
    assert configuration_directory(NOWHERE) == tmp_path / "home/.config/tfos"
    message = refusal(environ={"TFOS_CONF_DIR": "/nowhere/at/all"})
    assert message == "TFOS_CONF_DIR is '/nowhere/at/all': there is no such directory"


def test_known_settings_reach_the_innermost_ones():
    settings = list(known_settings())
    assert {"name", "roles.worker.memory", "spark.conf", "supervision.grace_s"} <= set(settings)
    assert len(settings) == len(set(settings))
    assert "roles" not in settings


# -- from Python -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: JobConfig(num_workers=8),
            "JobConfig: num_workers is not a setting; did you mean roles.num_workers?",
        ),
        (
            lambda: JobConfig(roles={"num_worker": 8}),
            "JobConfig: roles.num_worker is not a setting; did you mean roles.num_workers?",
        ),
        (lambda: JobConfig(arch="sp"), "JobConfig: arch is 'sp': it should be 'local', "),
        (lambda: RolesConfig(num_workers=0), "RolesConfig: num_workers is 0: it should be greater"),
        (lambda: JobConfig(roles={"num_workers": 0}), "JobConfig: roles.num_workers is 0: "),
        (
            lambda: with_options(None, {"num_worker": 8}, caller="tfos.run"),
            "tfos.run: num_worker is not an option; did you mean num_workers?",
        ),
        (
            lambda: with_options({"arch": "ps"}, {}, caller="tfos.run"),
            "tfos.run: config must be a tfos.JobConfig, not ",
        ),
        (
            lambda: with_options(None, {"zzz": 8}, caller="tfos.run"),
            "tfos.run: zzz is not an option; it takes name, arch",
        ),
        (
            lambda: with_options(None, {"master": "yarn"}, caller="tfos.run"),
            "tfos.run: master is for starting Spark",
        ),
        (
            lambda: with_options(None, {"num_workers": "many"}, caller="tfos.run"),
            "tfos.run, num_workers: roles.num_workers is 'many': it should be a valid integer",
        ),
        (
            lambda: with_options(JobConfig(), {"timeout": "soon"}, caller="tfos.run"),
            "tfos.run, timeout: supervision.timeout_s is 'soon': 'soon' is not a duration",
        ),
    ],
)
def test_a_wrong_setting_in_python_is_one_line(make, line):
    with pytest.raises(ConfigError) as told:
        make()
    assert str(told.value).startswith(line)
    assert "\n" not in str(told.value)
    assert "pydantic" not in str(told.value)


def test_options_in_python_are_those_of_the_command_line():
    given = JobConfig(name="mine", roles={"num_ps": 3}, params={"dim": 8})
    options = {"arch": "ps", "num_workers": 8, "timeout": "2h", "params": {"rank": 2}}
    found = with_options(given, options, caller="tfos.run")
    assert (found.name, found.arch) == ("mine", "ps")
    assert (found.roles.num_ps, found.roles.num_workers) == (3, 8)
    assert found.supervision.timeout_s == 7200
    assert found.params == {"dim": "8", "rank": "2"}
    assert with_options(None, {}, caller="tfos.run") == JobConfig()


def test_options_in_python_are_spelt_out():
    assert set(RunOptions.__annotations__) == set(SETTING_OF_RUN_OPTION)
    assert set(SETTING_OF_RUN_OPTION.values()) <= set(known_settings())


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("name", "null"),
        ("roles.num_ps", "1"),
        ("spark.master", "local"),
        ("spark.env", "none"),
        ("spark.wait", "true"),
        ("feed.memory_bytes", "1g"),
        ("feed.segment_bytes", "16m"),
        ("supervision.stall_timeout_s", "15m"),
        ("supervision.grace_s", "5s"),
        ("supervision.timeout_s", "null"),
    ],
)
def test_a_default_as_a_file_has_it_is_read_as_the_default(setting, text, tmp_path):
    *section, name = setting.split(".")
    model = JobConfig
    for part in section:
        model = model.model_fields[part].annotation
    assert default_text(model.model_fields[name]) == text
    file = tmp_path / "conf.yaml"
    file.write_text(f"{setting}: {text}\n")
    assert load(conf_files=[file]) == JobConfig()
