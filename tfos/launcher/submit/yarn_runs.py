"""Find runs that YARN has, read their logs and records, and end them. On any client."""

from __future__ import annotations

import logging
import re
import time
import urllib.request
from pathlib import Path
from typing import Final

from tfos.config import JobConfig
from tfos.errors import ConfigError, TfosError
from tfos.launcher.handover.result import RunResult
from tfos.launcher.handover.run_directory import RunDirectory, runs_root
from tfos.launcher.platform.yarn_client import Application, YarnClient
from tfos.launcher.submit.cluster_mode import clear_up, staging_directory
from tfos.launcher.submit.spark_command import CLUSTER_TAG, TAG

log = logging.getLogger("tfos")

__all__ = ["clear_up_after", "end_application", "find_application", "read_logs", "read_record"]

_ID: Final = re.compile(r"application_\d+_\d+")
_ORDERLY_WITHIN_S: Final = 60.0
_KILLED_WITHIN_S: Final = 20.0
_POLL_S: Final = 1.0
_ANSWER_WITHIN_S: Final = 20.0
_STREAMS: Final = ("stdout", "stderr")
# NodeManagers are the cluster's: a proxy of the environment leads out of it.
_DIRECTLY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_application(yarn: YarnClient, which: str) -> Application:
    """Return an application by its id, or by a job's name the user's run of it: alive, or latest.

    Names are not unique: those of other users are not meant, as `tfos kill` would end their runs
    where YARN has no access control, its default.

    Raises
    ------
    ConfigError
        If YARN knows none.
    """
    if _ID.fullmatch(which):
        return yarn.status(which)
    named = [application for application in yarn.find(TAG) if application.name == which]
    user = yarn.user
    own = [application for application in named if application.user == user]
    alive = [application for application in own if not application.ended]
    if len(alive) > 1:
        # One of them only waits to hear that the other holds the job's lock.
        ids = ", ".join(application.id for application in alive)
        raise ConfigError(f"{len(alive)} runs named {which!r} are alive: give the id of one: {ids}")
    if own:
        return (alive or own)[-1]
    if named:
        raise ConfigError(
            f"{user} has no run named {which!r}; the latest of that name is {named[-1].user}'s "
            f"{named[-1].id}: give that id if it is meant"
        )
    raise ConfigError(
        f"YARN knows no run named {which!r}: give an id (application_...), or the --name that "
        "it was submitted with (without one it is the application file's)"
    )


def read_record(config: JobConfig, application: Application) -> RunResult | None:
    """Return the record of a run in cluster mode that nobody waited for; None for no such thing."""
    try:
        return _directory(config, application).read()
    except TfosError:
        return None


def _directory(config: JobConfig, application: Application) -> RunDirectory:
    """Return where the driver looks and writes: in the home of the application's user."""
    staging = staging_directory(config, user=application.user)
    return RunDirectory(runs_root(staging), application.id)


def read_logs(yarn: YarnClient, application: Application, directory: Path) -> list[Path]:
    """Write the output of an application's containers to files in `directory`; return them.

    Raises
    ------
    ConfigError
        If there is none to be had.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if application.ended:
        if yarn.fetch_logs(application.id, directory):
            return sorted(path for path in directory.rglob("*") if path.is_file())
        raise ConfigError(
            f"YARN has no aggregated logs of {application.id}: NodeManagers may still upload them, "
            f"or keep them (yarn.log-aggregation-enable): {application.tracking_url}"
        )
    return [
        path
        for container, address in yarn.containers(application.id)
        for stream in _STREAMS
        if (path := _read_stream(container, address, stream, directory)) is not None
    ]


def _read_stream(container: str, address: str, stream: str, directory: Path) -> Path | None:
    """Ask the NodeManager of a running container for what it has written."""
    url = f"{address}/ws/v1/node/containers/{container}/logs/{stream}"
    try:
        with _DIRECTLY.open(url, timeout=_ANSWER_WITHIN_S) as answer:
            data = answer.read()
    except OSError:
        return None  # not begun, or gone meanwhile
    path = directory / f"{container}.{stream}"
    path.write_bytes(data)
    return path


def end_application(yarn: YarnClient, config: JobConfig, application: Application) -> Application:
    """End an application and return what YARN says of it then; blocks for at most 80 s."""
    if CLUSTER_TAG in application.tags and application.state == "RUNNING":
        try:
            _directory(config, application).ask_stop("tfos kill")
            ended = _await_end(yarn, application, _ORDERLY_WITHIN_S)
            if ended.ended:
                return ended
        except TfosError as error:
            log.warning("%s: killing it at once", error)
    yarn.kill(application.id)
    return _await_end(yarn, application, _KILLED_WITHIN_S)


def clear_up_after(config: JobConfig, application: Application) -> None:
    """Remove what the driver of an ended run left that never wrote its record."""
    if CLUSTER_TAG not in application.tags:
        return  # its client does that
    try:
        directory = _directory(config, application)
        if directory.read() is None:
            clear_up(directory)
    except TfosError as error:
        log.warning("what the run left, if anything, stays: %s", error)


def _await_end(yarn: YarnClient, application: Application, within_s: float) -> Application:
    deadline = time.monotonic() + within_s
    while not application.ended and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        application = yarn.status(application.id)
    return application
