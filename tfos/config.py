"""Hold the one validated configuration of a run; loading and precedence are in `config_files`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
)

from tfos.architectures import architecture_names
from tfos.environment_spec import EnvironmentSpec, parse_environment
from tfos.errors import ConfigError
from tfos.master import Master
from tfos.options import CODE, OUTPUT, ROLES, STATE, WHERE, Option
from tfos.setting_errors import describe_invalid, describe_unknown, unknown_settings

__all__ = [
    "LOCATION",
    "CheckpointConfig",
    "FeedConfig",
    "JobConfig",
    "NullPolicy",
    "RegistryConfig",
    "RoleResources",
    "RolesConfig",
    "SparkConfig",
    "SupervisionConfig",
    "parse_bytes",
    "parse_duration",
]

NullPolicy = Literal["error", "zero", "drop"]

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _installed(arch: str) -> str:
    names = architecture_names()
    if arch not in names:
        *others, last = map(repr, names)
        raise ValueError(f"it should be {', '.join(others)} or {last}")
    return arch


def parse_bytes(value: Any) -> Any:
    """Read ``512m``, ``1.5g``, ``4096`` as bytes (powers of 1024); other types pass through."""
    if not isinstance(value, str):
        return value
    match = _BYTES.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not an amount of memory (such as 512m or 1.5g)")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def parse_duration(value: Any) -> Any:
    """Read ``90``, ``90s``, ``15m``, ``2h`` as seconds; other types pass through."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a duration (such as 90, 90s, 15m or 2h)")
    return float(match[1]) * _SECONDS[(match[2] or "s").lower()]


def _parse_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _parse_environment(value: Any) -> Any:
    return parse_environment(value) if isinstance(value, str) else value


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


LOCATION = "location"
"""Marks the settings that hold a path or a URL: relative paths start from the caller's current
directory, once for all of them (`tfos.launcher.platform.paths.resolve_paths`)."""

Environment = Annotated[
    EnvironmentSpec, BeforeValidator(_parse_environment), PlainSerializer(str, return_type=str)
]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]
Location = Annotated[str | None, BeforeValidator(_as_text), LOCATION]


_NO_WAIT = (
    "In cluster mode: print the application's id as JSON and return; `tfos status`, `tfos logs` "
    "and `tfos kill` take it."
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    if not TYPE_CHECKING:  # Type checkers and editors know the fields.

        def __init__(self, /, **settings: Any) -> None:
            kind = type(self)
            unknown = [describe_unknown(kind, path) for path in unknown_settings(kind, settings)]
            if unknown:
                raise ConfigError(f"{kind.__name__}: " + "; ".join(unknown))
            try:
                super().__init__(**settings)
            except ValidationError as error:
                raise ConfigError(describe_invalid(error, {}, kind.__name__)) from None

        # As pydantic's own: validation of what is nested does not go through it.
        __init__.__pydantic_base_init__ = True


class RoleResources(_Section):
    """What each task of one role may use."""

    memory: Annotated[Bytes | None, Option("--{role}-memory", ROLES, "SIZE")] = Field(
        None,
        gt=0,
        description="All the memory a task may use, such as 2g (YARN, Kubernetes); unset: Spark's "
        "own.",
    )
    cores: Annotated[int | None, Option("--{role}-cores", ROLES, "N")] = Field(
        None,
        ge=1,
        description="CPU cores per task: the size of TensorFlow's thread pools; unset: all that it "
        "finds.",
    )
    gpus: Annotated[int, Option("--{role}-gpus", ROLES, "N")] = Field(
        0, ge=0, description="GPUs per task (YARN, Kubernetes)."
    )


class RolesConfig(_Section):
    """How many tasks of each role, and their resources. Counts apply to `ps`, `session`, `ring`."""

    num_ps: Annotated[int, Option("--num-ps", ROLES, "N")] = Field(
        1, ge=0, description="Parameter servers."
    )
    num_workers: Annotated[int, Option("--num-workers", ROLES, "N")] = Field(
        2, ge=1, description="Workers."
    )
    chief: RoleResources = RoleResources()
    worker: RoleResources = RoleResources()
    ps: RoleResources = RoleResources()


class SparkConfig(_Section):
    """How the Spark application is submitted."""

    master: Annotated[Master, Option("--master", WHERE, "MASTER")] = Field(
        Master("local"),
        description="Spark master: local (this machine, as many slots as there are roles), "
        "local[N], local-cluster[N,CORES,MB] (executors in JVMs of their own), spark://HOST:PORT, "
        "yarn, k8s://URL.",
    )
    deploy_mode: Annotated[Literal["client", "cluster"], Option("--deploy-mode", WHERE)] = Field(
        "client", description="Where the driver runs: here (client) or in the cluster."
    )
    queue: Annotated[str | None, Option("--queue", WHERE, "NAME")] = Field(
        None, description="YARN queue."
    )
    priority: Annotated[int | None, Option("--priority", WHERE, "N")] = Field(
        None, ge=0, description="YARN priority: higher goes first."
    )
    tags: Annotated[list[str], Option("--tags", WHERE, "TAGS", commas=True)] = Field(
        default_factory=list,
        description="YARN tags to find the application by, beside `tfos`.",
    )
    wait: Annotated[bool, Option("--no-wait", WHERE, negates=True, help=_NO_WAIT)] = Field(
        True, description="Whether pl_submit waits for a run in cluster mode to end."
    )
    staging_dir: Location = Field(
        None,
        description="Directory or URL in the cluster's file system for records of runs and what is "
        "shipped; unset: .tfos in the user's home in HADOOP_CONF_DIR's fs.defaultFS.",
    )
    encrypt: Annotated[bool, Option("--encrypt", WHERE)] = Field(
        False,
        description="Authenticate and encrypt Spark's connections and local files; see "
        "docs/security.md.",
    )
    principal: Annotated[str | None, Option("--principal", WHERE, "NAME")] = Field(
        None,
        description="Kerberos principal that Spark logs in as (YARN, Kubernetes); with keytab.",
    )
    keytab: Annotated[Location, Option("--keytab", WHERE, "FILE")] = Field(
        None, description="File with that principal's keys."
    )
    env: Annotated[Environment, Option("--env", WHERE, "ENV")] = Field(
        EnvironmentSpec("none"),
        description="Python environment of the containers: none (theirs), venv:DIRECTORY or "
        "conda:NAME (packed and shipped once), archive:URL, docker:IMAGE.",
    )
    conf: Annotated[dict[str, str], Option("--spark-conf", CODE, "KEY=VALUE")] = Field(
        default_factory=dict,
        description="Further Spark properties. Secrets belong in a file: a command line can be "
        "read by other users.",
    )
    py_files: Annotated[list[str], Option("--py-files", CODE, "FILES", commas=True)] = Field(
        default_factory=list, description="Python files or zips for every process."
    )
    files: Annotated[list[str], Option("--files", CODE, "FILES", commas=True)] = Field(
        default_factory=list, description="Files for every executor."
    )
    archives: Annotated[list[str], Option("--archives", CODE, "FILES", commas=True)] = Field(
        default_factory=list,
        description="Archives to unpack for every executor; FILE#NAME names the directory.",
    )


class RegistryConfig(_Section):
    """Where roles meet and how long they wait."""

    zookeeper: Annotated[str | None, Option("--zookeeper", WHERE, "HOSTS/PATH")] = Field(
        None,
        description="HOST:PORT[,HOST:PORT...][/PATH] of a ZooKeeper to meet at; unset: one is "
        "started with the driver.",
    )
    session_timeout_s: Seconds = Field(10.0, ge=2, le=120, description="ZooKeeper session timeout.")
    connect_timeout_s: Seconds = Field(15.0, gt=0, description="Time to reach ZooKeeper.")
    register_timeout_s: Seconds = Field(
        600.0,
        gt=0,
        description="Time for every role to have started and registered: a container has to be "
        "free, and the environment unpacked there.",
    )


class FeedConfig(_Section):
    """How the DataFrame travels to the training processes."""

    spool_dir: Location = Field(
        None,
        description="Local directory of spools; unset: memory-backed, then a disk of Spark's or "
        "YARN's.",
    )
    memory_bytes: Bytes = Field(
        1 << 30, gt=0, description="Spooled bytes a role may hold in memory-backed files."
    )
    disk_bytes: Bytes = Field(
        64 << 30, ge=0, description="Spooled bytes a role may hold on local disk beyond that."
    )
    segment_bytes: Bytes = Field(
        16 << 20, gt=0, description="Size at which a segment file is published to the reader."
    )
    batch_rows: int = Field(
        4096, ge=1, description="Rows of each Arrow batch Spark sends (maxRecordsPerBatch)."
    )
    nulls: NullPolicy = Field(
        "error", description="Nulls: error, zero (0, false, empty), or drop (the row)."
    )
    wait_timeout_s: Seconds = Field(
        600.0, gt=0, description="Longest a reader waits for Spark's next rows."
    )


class CheckpointConfig(_Section):
    """Where and when training state is kept."""

    dir: Annotated[Location, Option("--checkpoint-dir", STATE, "DIR")] = Field(
        None,
        description="Directory or URL for checkpoints; a run with the same name and directory "
        "continues from the latest complete one. Unset: none are kept.",
    )
    every_s: Seconds = Field(60.0, gt=0, description="Seconds between checkpoints.")
    keep: int = Field(3, ge=1, description="Complete checkpoints kept.")
    fresh: Annotated[bool, Option("--fresh", STATE)] = Field(
        False, description="Remove this job's checkpoints first and start over."
    )
    warm_start: Annotated[Location, Option("--warm-start", STATE, "DIR")] = Field(
        None,
        description="Begin from the variables that fit of another job's checkpoints, of one "
        "checkpoint or of a SavedModel; the job's own checkpoints come first.",
    )


class SupervisionConfig(_Section):
    """How processes are watched and ended."""

    max_restarts: Annotated[int, Option("--max-restarts", STATE, "N")] = Field(
        3,
        ge=0,
        description="Restarts allowed within restart_window_s (10 minutes) before the run is given "
        "up; 0: none.",
    )
    restart_window_s: Seconds = Field(
        600.0, gt=0, description="The sliding window in which restarts are counted."
    )
    heartbeat_timeout_s: Seconds = Field(
        60.0, ge=2, description="Silence after which a training process is taken for hung."
    )
    stall_timeout_s: Annotated[Seconds, Option("--stall-timeout", STATE, "TIME")] = Field(
        900.0,
        ge=1,
        description="Longest time without a new step, once steps are reported, before a process is "
        "taken for hung.",
    )
    connect_timeout_s: Seconds = Field(
        120.0,
        gt=0,
        description="Longest time for a training process to connect to its peers, once all roles "
        "have registered.",
    )
    standby: bool = Field(
        True,
        description="Keep a second process with TensorFlow imported at every role, so that a "
        "restart need not wait for the import; costs about 200 MB of memory a role.",
    )
    timeout_s: Annotated[Seconds | None, Option("--timeout", STATE, "TIME")] = Field(
        None,
        gt=0,
        description="Maximum duration of the whole run: 90, 90s, 15m, 2h; unset: no limit.",
    )
    grace_s: Seconds = Field(
        5.0, ge=0, description="Time a process has to end by itself before it is killed."
    )
    inject: Annotated[list[str], Option("--inject", STATE, "FAULT")] = Field(
        default_factory=list,
        description="Faults to cause on purpose, to see the job recover: ACTION:TARGET@POINT, such "
        "as kill:worker-0@step=100, stop:ps-0@feed, kill:chief-0/executor@checkpoint; "
        "docs/fault-drills.md has them all.",
    )


class JobConfig(_Section):
    """Everything that decides a run, validated. Build it by `config_files.load` or directly."""

    name: Annotated[str | None, Option("--name", STATE, "NAME")] = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Job name; checkpoints belong to it. Unset: the Job class's name.",
    )
    arch: Annotated[
        str, AfterValidator(_installed), Option("--arch", ROLES, choices=architecture_names)
    ] = Field("local", description="Architecture: which processes train, and how.")
    keras: Annotated[Literal[2, 3], BeforeValidator(_parse_number), Option("--keras", ROLES)] = (
        Field(
            2,
            description="What tf.keras is in every process: 2 (tf_keras) or 3. ps and ring need 2.",
        )
    )
    params: Annotated[dict[str, str], Option("--param", CODE, "KEY=VALUE", short="-p")] = Field(
        default_factory=dict, description="Parameters for ctx.params and job.params."
    )
    args: list[str] = Field(default_factory=list, description="ctx.args and job.args.")
    model_dir: Annotated[Location, Option("--model-dir", STATE, "DIR")] = Field(
        None, description="Where ctx.export publishes models."
    )
    result_json: Annotated[Location, Option("--result-json", OUTPUT, "FILE")] = Field(
        None,
        description="Where a record of the run is written, however it ends: outcome, exit code, "
        "error, failures, metrics, paths.",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Option("--log-level", OUTPUT)
    ] = Field("info", description="How much tfos itself logs.")
    roles: RolesConfig = RolesConfig()
    spark: SparkConfig = SparkConfig()
    registry: RegistryConfig = RegistryConfig()
    feed: FeedConfig = FeedConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    supervision: SupervisionConfig = SupervisionConfig()

    @field_validator("params", mode="before")
    @classmethod
    def _params_are_text(cls, value: Any) -> Any:
        # YAML reads `dim: 16` as a number; the command line gives text. One type for both.
        if isinstance(value, dict):
            return {str(k): v if isinstance(v, str) else str(v) for k, v in value.items()}
        return value
