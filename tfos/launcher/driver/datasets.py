"""Check what ``pre_train`` returned and deal it to the roles. Runs on the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos.arrow_feed.frame import is_repeatable, partition_for, prepare_frame, tag_frames
from tfos.arrow_feed.gang import deal_to_gang
from tfos.arrow_feed.schema import FeedSchema
from tfos.errors import JobDefinitionError
from tfos.frameworks.contract import TRAIN, Framework
from tfos.topology import Role, RoleSpec

__all__ = ["FedFrames", "check_frames"]


def check_frames(returned: Any, job_name: str) -> Mapping[str, Any]:
    """Return ``pre_train``'s DataFrames by name.

    Raises
    ------
    JobDefinitionError
        If it returned nothing, or anything but a DataFrame or a mapping of names to DataFrames
        with one named "train"; or if one of them is a streaming one.
    """
    if returned is None:
        raise JobDefinitionError(
            f"{job_name}.pre_train returned None: return a DataFrame, or a mapping of names to "
            "DataFrames (is a return statement missing?)"
        )
    frames = returned if isinstance(returned, Mapping) else {TRAIN: returned}
    for name, frame in frames.items():
        if not isinstance(name, str) or not _is_frame(frame):
            raise JobDefinitionError(
                f"{job_name}.pre_train returned {_type_name(frame)}"
                + (f" for {name!r}" if isinstance(returned, Mapping) else "")
                + ": a pyspark.sql.DataFrame is expected"
            )
        if frame.isStreaming:
            raise JobDefinitionError(
                f"{job_name}.pre_train returned a streaming DataFrame for {name!r}: a role trains "
                "on rows that have an end; use spark.read in place of spark.readStream"
            )
    if TRAIN not in frames:
        raise JobDefinitionError(
            f"{job_name}.pre_train returned DataFrames named {sorted(frames)}: one of them must "
            f"be named {TRAIN!r}"
        )
    return frames


def _type_name(value: Any) -> str:
    # pandas has a DataFrame, too.
    package, name = type(value).__module__.partition(".")[0], type(value).__name__
    return name if package == "builtins" else f"{package}.{name}"


def _is_frame(value: Any) -> bool:
    from pyspark.sql import DataFrame

    return isinstance(value, DataFrame)


@dataclass(frozen=True)
class FedFrames:
    """What feeds each role.

    Parameters
    ----------
    names
        The DataFrames' names.
    schemas
        Their schemas.
    frames
        The DataFrame of each fed role, with one partition a task; rows are tagged with their
        dataset where a role is fed by several, and a gang's are packed (`tfos.arrow_feed.gang`).
    repeatable
        Whether every role gets the same rows in the same order when Spark is asked again.
    """

    names: tuple[str, ...]
    schemas: Mapping[str, FeedSchema]
    frames: Mapping[Role, Any]
    repeatable: bool

    @classmethod
    def prepare(
        cls, frames: Mapping[str, Any], framework: Framework, roles: Sequence[RoleSpec]
    ) -> FedFrames:
        """Check every column's type and build the roles' DataFrames; no Spark job runs.

        Raises
        ------
        UnsupportedTypeError
            If a column has no TensorFlow counterpart.
        SchemaMismatchError
            If DataFrames that travel together disagree on a column's type.
        """
        names = tuple(frames)
        prepared = {name: prepare_frame(frame) for name, frame in frames.items()}
        schemas = {name: schema for name, (_, schema) in prepared.items()}
        dealt, repeatable = {}, True
        for spec in roles:
            fed = framework.feeds(spec.role, names)
            if not fed:
                continue
            whole = prepared[fed[0]][0]
            if len(fed) > 1:
                whole, _ = tag_frames({name: frames[name] for name in fed})
            if spec.gang:
                # Of several DataFrames each is dealt to all.
                dealt[spec.role] = deal_to_gang(whole, spec.count, cut=len(fed) > 1)
                # Packed batches are sorted behind their shuffle: it is what goes in that counts.
                repeatable &= is_repeatable(whole)
            else:
                dealt[spec.role] = partition_for(whole, spec.count)
                repeatable &= is_repeatable(dealt[spec.role])
        return cls(names, schemas, dealt, repeatable)
