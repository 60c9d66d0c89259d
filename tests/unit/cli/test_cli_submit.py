"""The command line: what it builds, how it answers, what its manual says."""

import json
import re

import pytest
from click.testing import CliRunner

from tfos import __version__
from tfos.cli.main import main, pl_submit
from tfos.cli.manual import exit_code_meanings
from tfos.config import JobConfig
from tfos.config_files import known_settings
from tfos.errors import ConfigError, ExitCode, RunTimeoutError
from tfos.launcher.in_process import debug as debug_run
from tfos.launcher.submit import client
from tfos.option_names import SETTING_OF_OPTION

OPTIONS = [
    "--master",
    "--deploy-mode",
    "--name",
    "--arch",
    "--keras",
    "--num-ps",
    "--num-workers",
    "--ps-memory",
    "--worker-memory",
    "--chief-memory",
    "--ps-cores",
    "--worker-cores",
    "--chief-cores",
    "--chief-gpus",
    "--ps-gpus",
    "--worker-gpus",
    "--zookeeper",
    "--checkpoint-dir",
    "--model-dir",
    "--fresh",
    "--warm-start",
    "--max-restarts",
    "--stall-timeout",
    "--inject",
    "--timeout",
    "--env",
    "--queue",
    "--priority",
    "--tags",
    "--no-wait",
    "--encrypt",
    "--principal",
    "--keytab",
    "-p",
    "--param",
    "--conf",
    "--spark-conf",
    "--py-files",
    "--files",
    "--archives",
    "--result-json",
    "--dry-run",
    "--log-level",
    "--version",
]


class Submitted:
    """Stands in for `client.submit`: notes what it was given."""

    def __init__(self, monkeypatch):
        self.config: JobConfig | None = None
        self.app: str | None = None
        self.dry_run: bool | None = None
        self.raises: Exception | None = None
        monkeypatch.setattr(client, "submit", self)

    def __call__(self, config, app, *, dry_run):
        self.config, self.app, self.dry_run = config, app, dry_run
        if self.raises is not None:
            raise self.raises
        return 0


@pytest.fixture
def submitted(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFOS_CONF_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return Submitted(monkeypatch)


def run(*args, command=pl_submit, prog="pl_submit"):
    return CliRunner().invoke(command, args, prog_name=prog)


def test_nothing_but_the_app_is_the_defaults(submitted):
    assert run("app.py").exit_code == 0
    assert (submitted.config, submitted.app, submitted.dry_run) == (JobConfig(), "app.py", False)


def test_every_option_reaches_its_setting(submitted, tmp_path):
    (tmp_path / "c.yaml").write_text("supervision: {grace_s: 9}\nname: file\n")
    arguments = [
        "--master",
        "local[9]",
        "--deploy-mode",
        "client",
        "--name",
        "n",
        "--arch",
        "ps",
        "--num-ps",
        "3",
        "--num-workers",
        "4",
        "--ps-memory",
        "1g",
        "--worker-memory",
        "2g",
        "--chief-memory",
        "3g",
        "--ps-cores",
        "5",
        "--worker-cores",
        "6",
        "--chief-cores",
        "7",
        "--worker-gpus",
        "8",
        "--zookeeper",
        "h:1/p",
        "--checkpoint-dir",
        "ck",
        "--model-dir",
        "m",
        "--fresh",
        "--max-restarts",
        "2",
        "--stall-timeout",
        "5m",
        "--inject",
        "kill:worker-0@step=9",
        "--inject",
        "stop:ps-0@feed",
        "--timeout",
        "15m",
        "--env",
        "docker:i",
        "--queue",
        "q",
        "--encrypt",
        "--principal",
        "u@R",
        "--keytab",
        "/k",
        "-p",
        "a=1",
        "--param",
        "b=x=y",
        "-p",
        "c=",
        "--conf",
        "c.yaml",
        "--spark-conf",
        "s.a=1",
        "--spark-conf",
        "s.b=2",
        "--py-files",
        "a.py,b.py",
        "--py-files",
        "c.py",
        "--files",
        "f",
        "--archives",
        "z#z",
        "--result-json",
        "r.json",
        "--log-level",
        "debug",
        "--dry-run",
        "app.py:J",
        "--",
        "--fast",
        "-p",
        "z",
        "3",
    ]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    config = submitted.config
    assert config == JobConfig.model_validate(
        {
            "name": "n",
            "arch": "ps",
            "params": {"a": "1", "b": "x=y", "c": ""},
            "args": ["--fast", "-p", "z", "3"],
            "model_dir": "m",
            "result_json": "r.json",
            "log_level": "debug",
            "roles": {
                "num_ps": 3,
                "num_workers": 4,
                "ps": {"memory": 1 << 30, "cores": 5},
                "worker": {"memory": 2 << 30, "cores": 6, "gpus": 8},
                "chief": {"memory": 3 << 30, "cores": 7},
            },
            "spark": {
                "master": "local[9]",
                "queue": "q",
                "encrypt": True,
                "principal": "u@R",
                "keytab": "/k",
                "env": "docker:i",
                "conf": {"s.a": "1", "s.b": "2"},
                "py_files": ["a.py", "b.py", "c.py"],
                "files": ["f"],
                "archives": ["z#z"],
            },
            "registry": {"zookeeper": "h:1/p"},
            "checkpoints": {"dir": "ck", "fresh": True},
            "supervision": {
                "max_restarts": 2,
                "stall_timeout_s": 300,
                "inject": ["kill:worker-0@step=9", "stop:ps-0@feed"],
                "timeout_s": 900,
                "grace_s": 9,
            },
        }
    )
    assert (submitted.app, submitted.dry_run) == ("app.py:J", True)


def test_options_left_out_do_not_override_files(submitted, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "checkpoints: {dir: x, fresh: true}\nargs: [a]\nspark: {files: [f]}\nparams: {k: v}\n"
    )
    assert run("--conf", "c.yaml", "-p", "l=w", "app.py").exit_code == 0
    config = submitted.config
    assert config.checkpoints.fresh is True
    assert (config.args, config.spark.files) == (["a"], ["f"])
    assert config.params == {"k": "v", "l": "w"}


def test_options_are_exactly_those_agreed_and_lead_to_settings():
    names = {name for param in pl_submit.params for name in param.opts}
    assert names - {"app", "args"} == set(OPTIONS)
    assert set(SETTING_OF_OPTION.values()) <= set(known_settings())
    options = {param.name for param in pl_submit.params}
    assert set(SETTING_OF_OPTION) <= options


def test_an_error_is_one_line_and_its_exit_code(submitted):
    submitted.raises = RunTimeoutError("too\nlate", timeout_s=1.0)
    result = run("app.py")
    assert result.exit_code == ExitCode.TIMEOUT
    assert result.stderr == "pl_submit: error: too late\n"
    assert result.stdout == ""


def test_a_wrong_value_names_the_option(submitted):
    result = run("--num-workers", "0", "app.py")
    assert result.exit_code == ExitCode.CONFIG
    assert result.stderr.startswith("pl_submit: error: --num-workers: roles.num_workers is 0: ")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--env", "conda", "it names nothing: use conda:NAME or conda:DIRECTORY"),
        ("--env", "/opt/train", "for a virtual environment: venv:/opt/train"),
        ("--env", "none:x", "none takes no value: use none"),
        ("--master", "mesos://a:1", "yarn or k8s://URL"),
    ],
)
def test_a_value_that_is_parsed_is_told_with_its_option_once(submitted, option, value, said):
    result = run(option, value, "app.py")
    assert result.exit_code == ExitCode.CONFIG
    begin = f"pl_submit: error: {option}: spark.{option[2:]} is {value!r}: "
    assert result.stderr.startswith(begin)
    assert result.stderr.rstrip().endswith(said)
    assert result.stderr.count(option) == 1
    assert submitted.config is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--num-worker", "2", "app.py"], "--num-workers"),
        (["--arch", "pss", "app.py"], "'pss' is not one of 'local', 'plain'"),
        (["-p", "novalue", "app.py"], "'novalue' is not KEY=VALUE"),
        (["-p", "=v", "app.py"], "'=v' is not KEY=VALUE"),
        (["--num-ps", "two", "app.py"], "'two' is not a valid int"),
        ([], "app.py"),
    ],
)
def test_usage_errors_end_like_configuration_errors(submitted, arguments, says):
    result = run(*arguments)
    assert result.exit_code == ExitCode.CONFIG
    assert says in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--result-json", "r.json", "--num-workers", "0", "app.py"],
        ["--result-json=r.json", "--conf", "none.yaml", "app.py"],
        ["--nonsense", "--result-json", "r.json", "app.py"],
        ["-p", "x", "--result-json=r.json", "app.py"],
    ],
)
def test_a_record_is_written_for_errors_of_the_command_line(submitted, tmp_path, arguments):
    (tmp_path / "r.json").write_text("an older record")
    assert run(*arguments).exit_code == ExitCode.CONFIG
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["outcome"], record["exit_code"]) == ("failed", 2)
    assert record["error"]


def test_a_record_that_cannot_be_written_is_told_besides(submitted, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("--result-json", "file/r.json", "--num-ps=-1", "app.py")
    assert result.exit_code == ExitCode.CONFIG
    first, second = result.stderr.splitlines()
    assert "roles.num_ps" in first
    assert "--result-json" in second


def test_the_clients_errors_leave_the_record_to_the_client(submitted, tmp_path):
    submitted.raises = ConfigError("no")
    assert run("--result-json", "r.json", "app.py").exit_code == ExitCode.CONFIG
    assert not (tmp_path / "r.json").exists()


def test_a_defect_is_one_line_and_recorded(submitted, tmp_path):
    submitted.raises = KeyError("x")
    result = run("--result-json", "r.json", "app.py")
    assert result.exit_code == ExitCode.INTERNAL
    assert result.stderr.count("\n") == 1
    assert "internal error: KeyError: 'x'" in result.stderr
    assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == 1
    assert "Traceback" in run("--log-level", "debug", "app.py").stderr


def test_a_dry_run_writes_no_record(submitted, tmp_path):
    assert run("--dry-run", "--result-json", "r.json", "--num-ps=-1", "app.py").exit_code == 2
    assert not (tmp_path / "r.json").exists()


def test_tfos_submit_is_the_same_command(submitted):
    result = run("submit", "--arch", "ps", "app.py", command=main, prog="tfos")
    assert result.exit_code == 0
    assert submitted.config.arch == "ps"
    submitted.raises = ConfigError("no")
    assert run("submit", "a.py", command=main, prog="tfos").stderr == "tfos submit: error: no\n"


@pytest.mark.parametrize(("command", "prog"), [(main, "tfos"), (pl_submit, "pl_submit")])
def test_version(command, prog):
    result = run("--version", command=command, prog=prog)
    assert (result.exit_code, result.output) == (0, f"tfos {__version__}\n")


def test_the_manual_is_complete():
    text = run("--help").output
    for option in (*OPTIONS, "-h, --help"):
        assert re.search(rf"(^|[ ,]){re.escape(option)}\b", text, re.MULTILINE), option
    for heading in ("Where it runs", "Roles", "Examples", "Architectures", "Exit codes"):
        assert f"\n{heading}:\n" in text
    for code in ExitCode:
        assert re.search(rf"^  {int(code)} +\S", text, re.MULTILINE)
    for arch in ("local", "ps", "session", "ring"):
        assert re.search(rf"^  {arch} +\S", text, re.MULTILINE)
    assert "TFOS_CONF_DIR" in text
    assert max(map(len, text.splitlines())) <= 100


def test_exit_codes_mean_what_their_definition_says():
    meanings = exit_code_meanings()
    assert set(meanings) == set(ExitCode)
    assert meanings[ExitCode.TIMEOUT] == "--timeout ran out."
    assert meanings[ExitCode.OK] == "The run finished."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--conf", "spark.executor.memory=2g"], "--spark-conf spark.executor.memory=2g"),
        (["--conf", "dim=16"], "-p dim=16, a Spark property --spark-conf dim=16"),
        (["--conf", "roles.num_ps=2"], "the option of that setting is --num-ps"),
        (["--conf", "feed.nulls=zero"], "a line 'feed.nulls: zero' of such a file"),
        (["--conf", "spark.master=yarn"], "the option of that setting is --master"),
    ],
)
def test_a_setting_in_place_of_a_file_is_answered_with_the_option_that_takes_it(
    submitted, arguments, says
):
    answer = run(*arguments, "app.py")
    assert answer.exit_code == ExitCode.CONFIG
    assert says in answer.output
    assert "is not a FILE of settings" in answer.output


def test_a_file_may_have_an_equals_sign_in_its_name(submitted, tmp_path):
    file = tmp_path / "dim=16.yaml"
    file.write_text("name: x")
    assert run("--conf", str(file), "app.py").exit_code == 0
    assert submitted.config.name == "x"


def test_a_forgotten_p_is_told_and_what_follows_two_dashes_is_the_jobs_own(submitted):
    answer = run("app.py", "data=x")
    assert answer.exit_code == ExitCode.CONFIG
    assert "A parameter of the job is -p data=x" in answer.output
    for arguments in (["app.py", "--", "data=x"], ["app.py", "plain", "a b=c"]):
        assert run(*arguments).exit_code == 0
        assert submitted.config.args == [each for each in arguments[1:] if each != "--"]


def test_debug_takes_the_command_line_of_a_submit_and_knows_what_it_does_not_use(monkeypatch):
    taken = []
    monkeypatch.setattr(debug_run, "debug", lambda *given: taken.append(given) or 0)
    line = ["--arch", "ps", "-p", "k=v", "--checkpoint-dir", "ck", "app.py:Job", "--", "--fast"]
    answer = CliRunner().invoke(main, ["debug", *line])
    assert answer.exit_code == 0, answer.output
    ((config, app, options),) = taken
    assert (config.arch, config.params, config.args) == ("ps", {"k": "v"}, ["--fast"])
    assert app == "app.py:Job"
    unused = {option for setting, option in options.items() if not debug_run.is_used(setting)}
    assert unused == {"--arch"}


def test_debug_has_nothing_to_plan():
    answer = CliRunner().invoke(main, ["debug", "--dry-run", "app.py"])
    assert answer.exit_code == 2
    assert "--dry-run belongs to pl_submit" in answer.output
