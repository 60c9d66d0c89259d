"""Ask YARN about applications, by Hadoop's own client in PySpark's jars. On the client.

It knows of high availability and Kerberos what the cluster's configuration says. It lives in a JVM
of its own, which takes 2 s to start.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfos.errors import ConfigError, InfrastructureError
from tfos.launcher.platform.hadoop_conf import hadoop_conf_dir

__all__ = ["ENDED_STATES", "Application", "YarnClient"]

ENDED_STATES = ("FINISHED", "FAILED", "KILLED")
"""The states of an application of which nothing runs any more."""

_ALL_BYTES = 1 << 40
_END_WITHIN_S = 10.0


@dataclass(frozen=True)
class Application:
    """What YARN says of an application.

    Parameters
    ----------
    id
        Its id.
    name, queue, user
        As submitted.
    state
        ACCEPTED, RUNNING, FINISHED, FAILED, KILLED and so on.
    final_status
        UNDEFINED while it runs; SUCCEEDED, FAILED or KILLED.
    tracking_url
        Where its user interface or history is; empty for none.
    diagnostics
        Why it ended, in YARN's words; may be empty.
    started
        Milliseconds since the epoch.
    tags
        As submitted.
    """

    id: str
    name: str
    queue: str
    user: str
    state: str
    final_status: str
    tracking_url: str
    diagnostics: str
    started: int
    tags: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in ENDED_STATES


class YarnClient:
    """A connection to the cluster of ``HADOOP_CONF_DIR``; made by `open`.

    Every call raises InfrastructureError when the ResourceManager does not answer, for which it
    waits as long as the cluster's configuration says.
    """

    def __init__(self, jvm: Any) -> None:
        self._jvm = jvm
        self._conf = jvm.org.apache.hadoop.yarn.conf.YarnConfiguration()
        self._conf.set("yarn.resourcemanager.connect.max-wait.ms", "20000")
        self._conf.set("yarn.resourcemanager.connect.retry-interval.ms", "2000")
        self._client = jvm.org.apache.hadoop.yarn.client.api.YarnClient.createYarnClient()
        self._client.init(self._conf)
        self._client.start()

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[YarnClient]:
        """Start the JVM, and end it at the end of the block.

        Raises
        ------
        ConfigError
            If the cluster's configuration is missing.
        InfrastructureError
            If the JVM does not start.
        """
        from pyspark.java_gateway import launch_gateway

        hadoop_conf_dir()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            gateway: Any = launch_gateway(popen_kwargs=quiet)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise InfrastructureError(f"YARN's client does not start: {error}") from error
        try:
            with _explained("configuration"):
                client = cls(gateway.jvm)
            yield client
        finally:
            gateway.shutdown()
            gateway.proc.stdin.close()
            try:
                gateway.proc.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                gateway.proc.kill()
                gateway.proc.wait()

    @property
    def user(self) -> str:
        """Whom YARN takes this process for: Hadoop's user, by Kerberos where that is on."""
        users = self._jvm.org.apache.hadoop.security.UserGroupInformation
        return str(users.getCurrentUser().getShortUserName())

    def status(self, application: str) -> Application:
        """Return what YARN says of an application; raises ConfigError when it knows of none."""
        with _explained(application):
            return _read(self._client.getApplicationReport(self._id(application)))

    def find(self, tag: str) -> list[Application]:
        """Return the applications with a tag, the latest last."""
        with _explained(tag):
            found = [_read(report) for report in self._client.getApplications()]
        found = [application for application in found if tag in application.tags]
        return sorted(found, key=lambda application: application.started)

    def containers(self, application: str) -> list[tuple[str, str]]:
        """Return the running containers: id, and address of the NodeManager's web application."""
        with _explained(application):
            attempt = self._client.getApplicationReport(
                self._id(application)
            ).getCurrentApplicationAttemptId()
            return [
                (str(report.getContainerId().toString()), str(report.getNodeHttpAddress()))
                for report in self._client.getContainers(attempt)
            ]

    def remove(self, directory: str) -> None:
        """Remove a directory of the cluster's file system with all that is in it; idempotent."""
        with _explained("file system"):
            path = self._jvm.org.apache.hadoop.fs.Path(directory)
            path.getFileSystem(self._conf).delete(path, True)

    def kill(self, application: str) -> None:
        """Have YARN kill an application; one that has ended is left alone."""
        with _explained(application):
            self._client.killApplication(self._id(application))

    def fetch_logs(self, application: str, directory: Path) -> bool:
        """Write an ended application's aggregated logs to files; say whether there were any."""
        with _explained(application):
            logs = self._jvm.org.apache.hadoop.yarn.logaggregation
            request = logs.ContainerLogsRequest()
            request.setAppId(self._id(application))
            request.setAppOwner(self.status(application).user)
            request.setAppFinished(True)
            request.setBytes(_ALL_BYTES)
            request.setOutputLocalDir(str(directory))
            request.setLogTypes(self._jvm.java.util.HashSet())  # all
            helpers = logs.LogCLIHelpers()
            helpers.setConf(self._conf)
            return int(helpers.dumpAllContainersLogs(request)) == 0

    def _id(self, application: str) -> Any:
        return self._jvm.org.apache.hadoop.yarn.api.records.ApplicationId.fromString(application)


def _read(report: Any) -> Application:
    return Application(
        id=str(report.getApplicationId().toString()),
        name=str(report.getName()),
        queue=str(report.getQueue()),
        user=str(report.getUser()),
        state=str(report.getYarnApplicationState().toString()),
        final_status=str(report.getFinalApplicationStatus().toString()),
        tracking_url=str(report.getTrackingUrl() or ""),
        diagnostics=str(report.getDiagnostics() or "").strip(),
        started=int(report.getStartTime()),
        tags=tuple(sorted(str(tag) for tag in report.getApplicationTags())),
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    from py4j.protocol import Py4JError, Py4JJavaError

    try:
        yield
    except Py4JJavaError as error:
        kind = str(error.java_exception.getClass().getSimpleName())
        if kind in ("ApplicationNotFoundException", "IllegalArgumentException"):
            raise ConfigError(f"YARN knows no {what}") from error
        said = " ".join(str(error.java_exception.getMessage()).split())
        raise InfrastructureError(f"YARN does not answer: {said[:500]}") from error
    except Py4JError as error:
        raise InfrastructureError(f"YARN's client has failed: {error}") from error
