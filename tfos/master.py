"""The Spark master of a run, parsed once: which sort of cluster it names and has room for. Pure."""

from __future__ import annotations

import os
import re
from typing import Any, Final, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tfos.errors import ConfigError, InsufficientExecutorsError

__all__ = ["Master", "MasterKind"]

MasterKind = Literal["local", "local-cluster", "standalone", "yarn", "k8s"]

_FORMS: Final[tuple[tuple[re.Pattern[str], MasterKind], ...]] = (
    (re.compile(r"local(\[(?P<threads>\*|\d+)(?P<failures>,\d+)?\])?"), "local"),
    (
        re.compile(r"local-cluster\[\s*(?P<executors>\d+)\s*,\s*(?P<cores>\d+)\s*,\s*\d+\s*\]"),
        "local-cluster",
    ),
    (re.compile(r"spark://\S+:\d+(,\S+:\d+)*"), "standalone"),
    (re.compile(r"yarn"), "yarn"),
    (re.compile(r"k8s://\S+"), "k8s"),
)


class Master(str):
    """A Spark master: the text by which Spark knows it, and what its form says.

    Parameters
    ----------
    text
        As the user gives it, or as a Spark session names its own.

    Attributes
    ----------
    kind
        The sort of cluster.

    Raises
    ------
    ConfigError
        If it is no Spark master; one line that says how it is written, of which `text` is the
        subject.

    Examples
    --------
    >>> Master("local-cluster[4,1,1024]").kind
    'local-cluster'
    >>> Master("spark://host:7077").in_containers
    False
    """

    kind: MasterKind

    def __new__(cls, text: str) -> Master:
        """Parse it."""
        master = super().__new__(cls, text.strip())
        master.kind = master._match()[1]
        return master

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate any text; it is kept, and written, as text."""
        written = core_schema.plain_serializer_function_ser_schema(str)
        return core_schema.no_info_after_validator_function(
            cls, handler(str), serialization=written
        )

    @property
    def is_local(self) -> bool:
        """Whether driver and executors all run on this machine because of its form."""
        return self.kind in ("local", "local-cluster")

    @property
    def in_containers(self) -> bool:
        """Whether each executor gets a container, of the size that its role needs."""
        return self.kind in ("yarn", "k8s")

    def with_room(
        self,
        slots: int,
        *,
        cpus: int | None = None,
        cpus_per_task: int = 1,
        failures: int | None = None,
    ) -> Master:
        """Return the master to submit to: ``local`` and ``local[*]`` get room for every role.

        Parameters
        ----------
        slots
            Tasks that must run at once.
        cpus
            CPUs of this machine; None to ask it.
        cpus_per_task
            ``spark.task.cpus``.
        failures
            How often a task may fail on a local master that does not say so itself; there
            ``spark.task.maxFailures`` counts for nothing. None leaves it to Spark, which takes 1.

        Raises
        ------
        InsufficientExecutorsError
            If the master says itself that it has fewer slots.

        Examples
        --------
        >>> Master("local").with_room(4, cpus=2, failures=4)
        'local[4,4]'
        """
        match, kind = self._match()
        if kind == "local":
            threads = match["threads"]
            limit = match["failures"] or ("" if failures is None else f",{failures}")
            if threads in (None, "*"):
                threads = max(cpus or os.cpu_count() or 1, slots * cpus_per_task)
            else:
                self._check(slots, int(threads) // cpus_per_task, f"local[{slots}] or local")
            return Master(f"local[{threads}{limit}]")
        if kind == "local-cluster":
            available = int(match["executors"]) * (int(match["cores"]) // cpus_per_task)
            self._check(slots, available, f"local-cluster[{slots},{cpus_per_task},1024]")
        return self

    def _match(self) -> tuple[re.Match[str], MasterKind]:
        for form, kind in _FORMS:
            if match := form.fullmatch(self):
                return match, kind
        raise ConfigError(
            "it should be local, local[N], local-cluster[N,CORES,MB], spark://HOST:PORT, yarn or "
            "k8s://URL"
        )

    def _check(self, needed: int, available: int, better: str) -> None:
        if available < needed:
            raise InsufficientExecutorsError(
                f"{needed} roles need {needed} task slots at once, --master {self} has "
                f"{available}: use --master {better}, or fewer --num-workers or --num-ps",
                needed=needed,
                available=available,
            )
