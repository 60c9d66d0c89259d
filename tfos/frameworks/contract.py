"""Say what an architecture must provide: its roles, its environment, and how its processes run.

This is the extension point: a third party adds a framework with one class and an entry point in
the group ``tfos.frameworks``. Modules here import TensorFlow only inside functions, because role
hosts and the driver load them too.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from tfos.architectures import ARCHITECTURES, installed_architectures
from tfos.arguments import Arguments
from tfos.base import TrainContext
from tfos.config import RoleResources, RolesConfig
from tfos.errors import ConfigError, EmptyDataError
from tfos.topology import ClusterSpec, Endpoint, Role, RoleSpec, TaskKey
from tfos.training_parts import (
    CheckpointInfo,
    Feed,
    FitPlan,
    FitResult,
    HostLink,
    OnNan,
    ProcessFacts,
    Runtime,
)

if TYPE_CHECKING:
    from tfos.arrow_feed.service import FeedService

__all__ = [
    "STATE",
    "TRAIN",
    "Framework",
    "PlainRuntime",
    "SingleProcess",
    "Store",
    "check_not_empty",
    "check_resumes",
    "load_framework",
    "role_spec",
    "saved_variables",
]

TRAIN = "train"
"""Name of the DataFrame that is dealt to the training processes; who gets the others is the
architecture's matter: `Framework.feeds`."""

STATE = "state"
"""The name in a checkpoint of what `TrainContext.fit` keeps."""


class Store(Protocol):
    """What the processes of one generation find each other by; runs on the driver."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""

    def close(self) -> None:
        """Stop listening; idempotent."""


class Framework(ABC):
    """One architecture."""

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    """What trains, and what for, in a sentence or two; for ``pl_submit --help``."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What every host needs to train, beside tfos and what it is fed by."""
    keras: ClassVar[tuple[int, ...]] = (2, 3)
    """The major versions of Keras that ``train`` may use."""
    checkpoint_name: ClassVar[str] = STATE
    """Under which name its variables lie in a checkpoint: architectures that share it can resume
    from each other's."""

    @abstractmethod
    def roles(self, config: RolesConfig) -> tuple[RoleSpec, ...]:
        """Return the roles of a run, the chief first.

        Raises
        ------
        ConfigError
            If the architecture cannot have as many of one as asked for.
        """

    @abstractmethod
    def feeds(self, role: Role, datasets: Sequence[str]) -> tuple[str, ...]:
        """Return which of the DataFrames in `datasets` are fed to `role`."""

    def check_installed(self) -> None:  # noqa: B027 - most need nothing but their packages
        """Check, light of imports, that this machine has what the architecture runs on.

        Raises
        ------
        ConfigError
            If not; says how to get it.
        """

    def versions(self) -> dict[str, str | None]:
        """Return the versions of what it trains with, by name, for the record in checkpoints."""
        return {}

    def import_libraries(self, role: Role) -> None:  # noqa: B027 - there may be nothing to import
        """Import what takes seconds, in a training process of `role` that waits to begin."""

    def ranks(self, trainers: tuple[TaskKey, ...], cluster: ClusterSpec) -> tuple[TaskKey, ...]:
        """Return the roles that run ``train``, in the order of their ranks in a generation."""
        return trainers

    def open_store(self, host: str) -> Store | None:
        """Open, on the driver, what the processes of one generation find each other by.

        None for an architecture whose `ClusterSpec` tells them all.

        Parameters
        ----------
        host
            Address of the driver that its executors reach.
        """
        return None

    def environment(self, key: TaskKey, resources: RoleResources) -> dict[str, str]:
        """Return environment variables for a training process of this role.

        They are defaults: what the role host's environment already sets wins.
        """
        environment = {}
        if resources.gpus == 0:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if resources.cores is not None:
            environment["OMP_NUM_THREADS"] = str(resources.cores)
        return environment

    def take_feed(self, service: FeedService) -> None:  # noqa: B027 - NumPy needs nothing
        """Let the framework's own ways of reading find this process's rows; before `runtime`."""

    @abstractmethod
    def runtime(self, facts: ProcessFacts, link: HostLink) -> AbstractContextManager[Runtime]:
        """Bring up what ``train`` runs on, in the training process; taken down on exit.

        On a clean exit of the block, it returns only once this process may end without harming
        its peers.
        """

    def serve(self, facts: ProcessFacts, link: HostLink) -> None:
        """Play a role that runs no ``train``: block until the run is stopped."""
        raise NotImplementedError(f"arch {self.name} has no role that serves")


class SingleProcess(Framework):
    """An architecture of one chief, fed with every DataFrame."""

    def roles(self, config: RolesConfig) -> tuple[RoleSpec, ...]:
        """Return the one role."""
        return (role_spec(Role.CHIEF, 1, config.chief, trains=True),)

    def feeds(self, role: Role, datasets: Sequence[str]) -> tuple[str, ...]:
        """Return all of them: there is nobody else to feed."""
        return tuple(datasets)


def role_spec(role: Role, count: int, resources: RoleResources, **kind: bool) -> RoleSpec:
    """Return the specification of a role with what its tasks may use; `kind` are its flags."""
    return RoleSpec(
        role,
        count,
        cores=resources.cores,
        memory_bytes=resources.memory,
        gpus=resources.gpus,
        **kind,
    )


def check_not_empty(name: str, counts: Any, whose: str) -> None:
    """Refuse a dataset of which a process has no rows; `whose` says what the processes are."""
    empty = ", ".join(str(index) for index, rows in enumerate(counts) if not rows)
    if empty:
        raise EmptyDataError(
            f"dataset {name!r} has no rows at {whose} {empty}: repartition it in pre_train"
        )


def check_resumes(framework: Framework, found: CheckpointInfo) -> None:
    """Refuse a checkpoint that another architecture wrote in a way that this one cannot read.

    Raises
    ------
    ConfigError
        Names both architectures, and the ways on.
    """
    other = found.made_by.get("arch", framework.name)
    if other == framework.name:
        return
    try:
        kept = load_framework(other).checkpoint_name
    except ConfigError:
        return  # a plug-in that is not installed here: what reads the checkpoint decides
    if kept == framework.checkpoint_name or f"{kept}.index" not in found.files:
        return
    versions = ", ".join(f"{k} {v}" for k, v in sorted(found.made_by.items()) if k != "arch")
    raise ConfigError(
        f"the checkpoint of step {found.step} ({found.path}) was written by --arch {other} "
        f"({versions}), and --arch {framework.name} cannot resume from it: use --arch {other}, "
        "another --name, or --fresh to remove the job's checkpoints and start over"
    )


def saved_variables(directory: str, name: str, reader: str) -> str:
    """Return the prefix of the variables in a checkpoint's directory.

    Raises
    ------
    ConfigError
        If something else lies there; `reader` is what was to read it.
    """
    prefix = os.path.join(directory, name)
    if not os.path.exists(f"{prefix}.index"):
        others = sorted(set(os.listdir(directory)) - {"MANIFEST.json", "COMMITTED"})
        raise ConfigError(
            f"{reader} cannot resume from the job's checkpoint: expected its file {name}.index, "
            f"found {', '.join(others)[:200] or 'none'}, which something else saved; use another "
            "--name, or --fresh to remove the job's checkpoints and start over"
        )
    return prefix


class PlainRuntime(Runtime):
    """A runtime with nothing but the process itself; the others add what they have."""

    strategy: Any = None
    coordinator: Any = None
    server: Any = None
    hvd: Any = None
    not_fed_hint: str = ""

    def gather(self, values: Any) -> Any:
        """Return them as the only ones: nobody steps along."""
        return np.asarray(values, np.float64)[np.newaxis]

    def steps_per_epoch(self, feed: Feed, name: str, batch_size: int) -> int:
        """Return the batches of the rank with most rows, of this process where nobody steps along.

        Raises
        ------
        EmptyDataError
            If a rank has no rows.
        """
        counts = self.gather(feed.count(name))
        check_not_empty(name, counts, "rank")
        return math.ceil(float(counts.max()) / batch_size)

    def keras_dataset(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the dataset itself."""
        return make()

    def keras_callbacks(self, ctx: TrainContext, on_nan: OnNan) -> list[Any]:
        """Refuse: Keras's own way to train is for the architectures of TensorFlow."""
        raise ConfigError("ctx.keras_callbacks() is for --arch local, ps and ring")

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return nullcontext()

    def fit(self, plan: FitPlan, ctx: TrainContext) -> FitResult:
        """Refuse: this architecture has no common loop."""
        raise ConfigError(
            "ctx.fit serves --arch local, ps and ring; elsewhere train writes its own loop over "
            "ctx.batches or ctx.dataset"
        )

    def exporter(
        self, model: Any, signatures: Any, options: Mapping[str, Any]
    ) -> Callable[[str], None]:
        """Return `model`, the user's own function.

        Raises
        ------
        TypeError
            If it is none, or there are options of TensorFlow's.
        """
        if not callable(model) or signatures is not None or options:
            what = "under this --arch a function of a directory that writes the model there"
            raise Arguments("ctx.export").wrong_type("model", model, what)
        write: Callable[[str], None] = model
        return write

    def device_setter(self) -> Any:
        """Refuse: only `session` places variables by a device function."""
        raise ConfigError("ctx.device_setter() is for --arch session; use ctx.scope() here")

    def monitored_session(self, ctx: TrainContext, hooks: Sequence[Any]) -> Any:
        """Refuse: only `session` has a server to open sessions on."""
        raise ConfigError("ctx.monitored_session() is for --arch session; use ctx.fit here")

    def session_config(self) -> Any:
        """Refuse: only `session` has a server to open sessions on."""
        raise ConfigError("ctx.session_config() is for --arch session; use ctx.scope() here")


def load_framework(name: str) -> Framework:
    """Find an architecture by its entry point.

    Raises
    ------
    ConfigError
        If none of that name is installed; lists those that are.
    """
    found = installed_architectures()
    if name not in found:
        raise ConfigError(
            f"--arch {name} is not available in this version; installed: {', '.join(sorted(found))}"
        )
    framework = found[name].load()()
    if not isinstance(framework, Framework):
        raise ConfigError(
            f"entry point {ARCHITECTURES}:{name} is not a tfos.frameworks.contract.Framework"
        )
    return framework
