"""Submit a run whose driver lives in the cluster: ship it, follow it, end it, read its record."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tfos.account import user_name
from tfos.config import JobConfig
from tfos.errors import (
    ExitCode,
    InfrastructureError,
    InterruptedRunError,
    RunTimeoutError,
    TfosError,
)
from tfos.launcher.handover.registry_nodes import erase_last_run
from tfos.launcher.handover.result import RunResult
from tfos.launcher.handover.run_directory import RunDirectory, runs_root
from tfos.launcher.platform.hadoop_conf import default_file_system, hadoop_conf_dir
from tfos.launcher.platform.role_memory import memory_used_when_killed
from tfos.launcher.platform.spark_refusal import explain_refusal
from tfos.launcher.platform.yarn_client import ENDED_STATES, YarnClient
from tfos.launcher.platform.yarn_wait import YarnWait
from tfos.launcher.submit.spark_process import (
    BACKSTOP_S,
    INTERRUPT_EXTRA_S,
    heard_signals,
    raised_signals,
)
from tfos.registry import lifeline

__all__ = ["SubmitOutput", "clear_up", "run_in_cluster", "staging_directory", "telling_lines"]

log = logging.getLogger("tfos")

_POLL_S: Final = 0.1
_RECORD_WITHIN_S: Final = 5.0
ANOTHER_DRIVER_WITHIN_S = 60.0
"""How long YARN may take to start a driver anew, before a record of the run is looked for."""

# The first before YARN has it: an interrupt then must still end it.
_SUBMITTED: Final = re.compile(r"(?:Submitting application|report for) (application_\d+_\d+) ")
_STATE: Final = re.compile(r"Application report for \S+ \(state: (\w+)\)")
_FIELD: Final = re.compile(r"^\t (?P<name>[A-Za-z ]+): ?(?P<value>.*)")
_EXITED: Final = re.compile(r"User application exited with (?:status )?([1-9]\d*)")
_ERROR: Final = re.compile(r"\w*(?:Error|Exception)\b|\bERROR\b|\berror:")
_STACK: Final = re.compile(r"at \S+\(.*\)$|\.\.\. \d+ more$|File \"|Traceback ")
_ABOUT_IT: Final = re.compile(r"^\w+ Client: |^\t ")


@dataclass
class SubmitOutput:
    """What spark-submit's lines have told so far. Pure: the caller brings the lines.

    Attributes
    ----------
    application
        The application's id; None until it is submitted.
    state
        Its latest state.
    final_status, diagnostics
        Of the latest report; empty before.
    said
        The last lines that are not about the application: warnings, errors, stack traces.
    """

    application: str | None = None
    state: str = ""
    final_status: str = ""
    diagnostics: str = ""
    said: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    _name: str = ""

    def hear(self, line: str) -> str | None:
        """Take in a line; return the application's state where it is a new one."""
        if match := _SUBMITTED.search(line):
            self.application = match[1]
        if match := _FIELD.match(line):
            self._name = match["name"]
            if self._name == "diagnostics":
                self.diagnostics = match["value"].replace("N/A", "")
            elif self._name == "final status":
                self.final_status = match["value"]
            return None
        if match := _STATE.search(line):
            before, self.state = self.state, match[1]
            return None if before == self.state else self.state
        if _ABOUT_IT.match(line):
            self._name = ""
        elif self._name == "diagnostics" and not line.startswith(("WARN", "ERROR")):
            self.diagnostics += f"\n{line}"
        else:
            self.said.append(line)
        return None


def telling_lines(diagnostics: str) -> str:
    """Return what of YARN's diagnostics says most, in one line. Pure.

    They begin with YARN's own account and end with the last words of the container's log: of that
    the errors count, and without any the last lines.
    """
    lines = [" ".join(line.split()) for line in diagnostics.splitlines()]
    lines = [line for line in lines if line and not _STACK.match(line)]
    errors = [line for line in lines if _ERROR.search(line)]
    kept = list(dict.fromkeys(errors or lines))[-3:]
    return "; ".join(line[:300] for line in kept)


def staging_directory(
    config: JobConfig, environ: Mapping[str, str] = os.environ, *, user: str | None = None
) -> str:
    """Return where the cluster's file system holds what tfos keeps there, for this user or `user`.

    Raises
    ------
    ConfigError
        If neither the configuration nor Hadoop's says.
    """
    if config.spark.staging_dir is not None:
        return config.spark.staging_dir.rstrip("/")
    root = default_file_system(hadoop_conf_dir(environ))
    user = user or environ.get("HADOOP_USER_NAME") or user_name(environ)
    return f"{root}/user/{user}/.tfos"


def run_in_cluster(
    command: Sequence[str],
    config: JobConfig,
    *,
    environ: Mapping[str, str],
    staging: str,
    directory: str,
) -> RunResult | None:
    """Run spark-submit, follow the application to its end, and return the run's record.

    None when the configuration says not to wait: the application's id is printed then. The first
    SIGINT, SIGTERM or SIGHUP asks the driver for an orderly end; a second one, or too long a time,
    has YARN kill the application. Call it from the main thread.

    Parameters
    ----------
    command
        The command line of spark-submit.
    environ
        Its environment.
    staging
        See `staging_directory`.
    directory
        What holds the files that the command names: removed when this process is killed.

    Raises
    ------
    TfosError
        If the application was not taken, or ended without a record.
    """
    following = _Following(command, config, environ, runs_root(staging), directory)
    output = following.until_gone()
    if output.application is None or not output.state:
        # YARN has never reported on it: it was not taken, as far as is known here.
        if output.application is not None:
            log.warning("if YARN took it after all: `tfos status %s` tells", output.application)
        if following.timed_out:
            timeout_s = config.supervision.timeout_s
            raise RunTimeoutError(
                f"YARN had not taken the application within --timeout {timeout_s:g} s",
                timeout_s=timeout_s,
            )
        if following.signals:
            raise InterruptedRunError("interrupted as the application was submitted")
        raise explain_refusal("\n".join(output.said), config)
    if not config.spark.wait and following.returncode == 0:
        record_url = RunDirectory(runs_root(staging), output.application).url
        print(json.dumps({"application_id": output.application, "record": record_url}))
        return None
    record = _record(runs_root(staging), output)
    if record is not None:
        return record
    if output.final_status == "SUCCEEDED":
        # Only a driver whose run was done ends so.
        log.warning("%s succeeded, but its record is lost", output.application)
        return RunResult(outcome="done", exit_code=ExitCode.OK, job=config.name)
    raise _unrecorded(config, output, following)


class _Following:
    """One spark-submit and the application it submits."""

    def __init__(
        self,
        command: Sequence[str],
        config: JobConfig,
        environ: Mapping[str, str],
        root: str,
        directory: str,
    ) -> None:
        # It dies with this process: nobody would follow the application to its end any more.
        self._command = lifeline.on_line(directory, command)
        self._environ = environ
        self._root = root
        supervision = config.supervision
        self._patience_s = supervision.grace_s + INTERRUPT_EXTRA_S
        self._limit_s = supervision.timeout_s
        # A driver that runs keeps --timeout itself.
        self._driver_extra_s = supervision.grace_s + BACKSTOP_S
        self._unpacks = config.spark.env.is_archive
        self._wait: YarnWait | None = None
        self.timed_out = False
        self._output = SubmitOutput()
        self._killing = False
        self.killed = False
        self._kill_at: float | None = None
        self._had_driver = False
        self._look_at: float | None = None
        self.signals: list[int] = []
        self.returncode: int | None = None

    def until_gone(self) -> SubmitOutput:
        with heard_signals() as self.signals:
            child = subprocess.Popen(
                self._command,
                env=dict(self._environ),
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            reader = threading.Thread(target=self._read, args=(child,), daemon=True)
            reader.start()
            try:
                self._follow(child)
            finally:
                child.kill()
                self.returncode = child.wait()
                assert child.stdin is not None
                child.stdin.close()
                reader.join(_RECORD_WITHIN_S)
        return self._output

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stderr is not None
        with child.stderr:
            for line in child.stderr:
                state = self._output.hear(line.rstrip("\n"))
                if state is not None:
                    log.info("%s: %s", self._output.application, state)

    def _follow(self, child: subprocess.Popen[str]) -> None:
        handled = 0
        begun = time.monotonic()
        while child.poll() is None:
            time.sleep(_POLL_S)
            now = time.monotonic()
            running = self._output.state == "RUNNING"
            if len(self.signals) > handled:
                handled += 1
                self._on_signal(child, first=handled == 1)
            if self._limit_s is not None:
                extra_s = self._driver_extra_s if running else 0.0
                self.timed_out |= now - begun > self._limit_s + extra_s
            if not running and self._output.state == "ACCEPTED" and not self._had_driver:
                self._show_wait(now)
            self._look_for_another_driver(now, running=running)
            if self.timed_out or (self._kill_at is not None and now > self._kill_at):
                self._kill(child)

    def _show_wait(self, now: float) -> None:
        if self._wait is None:
            self._wait = YarnWait(self._unpacks, now)
        if (words := self._wait.words(now)) is not None:
            log.info("%s", words)

    def _look_for_another_driver(self, now: float, *, running: bool) -> None:
        """Bound the wait of a run that has ended by itself for the next attempt YARN grants it.

        That one only says the same again, and makes YARN's final status FAILED; in a full queue it
        may not begin for hours.
        """
        if running:
            self._had_driver, self._look_at = True, None
        elif self._had_driver and self._look_at is None:
            self._look_at = now + ANOTHER_DRIVER_WITHIN_S
        elif self._look_at is not None and now > self._look_at:
            self._look_at = now + ANOTHER_DRIVER_WITHIN_S
            threading.Thread(target=self._kill_if_recorded, daemon=True).start()

    def _kill_if_recorded(self) -> None:
        assert self._output.application is not None
        try:
            if RunDirectory(self._root, self._output.application).read() is not None:
                log.info("the run has ended, and YARN has no container to say so from")
                self._kill_at = 0.0
        except TfosError as error:
            log.warning("%s", error)

    def _on_signal(self, child: subprocess.Popen[str], *, first: bool) -> None:
        application = self._output.application
        if application is None or not first or self._output.state != "RUNNING":
            self._kill(child)
            return
        log.warning("asking %s for an orderly end", application)
        self._kill_at = time.monotonic() + self._patience_s
        # Aside: a file system that does not answer must not keep the next signal waiting.
        threading.Thread(target=self._ask_stop, args=(application,), daemon=True).start()

    def _ask_stop(self, application: str) -> None:
        try:
            RunDirectory(self._root, application).ask_stop("pl_submit was interrupted")
        except TfosError as error:
            log.warning("%s", error)
            self._kill_at = 0.0

    def _kill(self, child: subprocess.Popen[str]) -> None:
        """Have YARN kill the application, once; what follows it then ends by itself."""
        if self._killing:
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                child.kill()
            return
        self._killing = True
        self._kill_at = time.monotonic() + self._patience_s
        if self._output.application is None:
            child.kill()
            return
        log.warning("killing %s", self._output.application)
        try:
            with YarnClient.open() as yarn:
                yarn.kill(self._output.application)
            self.killed = True
        except TfosError as error:
            log.warning("%s", error)
            child.kill()


def _record(root: str, output: SubmitOutput) -> RunResult | None:
    """Read the record, and remove what held it; it was there before the application ended."""
    assert output.application is not None
    directory = RunDirectory(root, output.application)
    record = directory.read()
    if record is None:
        if output.state in ENDED_STATES:
            clear_up(directory)
        return None
    try:
        directory.remove()
    except TfosError as error:
        log.warning("%s", error)
    return record


def clear_up(directory: RunDirectory) -> None:
    """Remove what a driver left that was killed: its nodes in an external ZooKeeper, and the way.

    That way stays as long as the nodes do. A failure is told, not raised; a signal ends the wait.
    """
    try:
        with raised_signals():
            left = directory.registry()
            if left is None or erase_last_run(left):
                directory.remove()
    except TfosError as error:
        log.warning("what the run left, if anything, stays at %s: %s", directory.url, error)


def _unrecorded(config: JobConfig, output: SubmitOutput, following: _Following) -> TfosError:
    application = output.application
    why = telling_lines(output.diagnostics)
    gone = following.killed or output.state in ENDED_STATES
    may_run = f"may still run: `tfos status {application}` tells, `tfos kill {application}` ends it"
    if following.timed_out:
        timeout_s = config.supervision.timeout_s
        return RunTimeoutError(
            f"{application} went past --timeout {timeout_s:g} s and no driver ended it: it "
            + ("was killed" if gone else f"could not be killed and {may_run}"),
            timeout_s=timeout_s,
        )
    if following.signals:
        return InterruptedRunError(
            f"interrupted: {application} "
            + ("was killed" if gone else f"could not be killed and {may_run}")
        )
    if not gone:
        return InfrastructureError(
            f"{application} was lost sight of, and {may_run}: {' '.join(list(output.said)[-1:])}"
        )
    if output.final_status == "KILLED" or output.state == "KILLED":
        return InterruptedRunError(f"{application} was killed in YARN: {why or 'it says no more'}")
    used = memory_used_when_killed(output.diagnostics)
    if used is not None:
        return TfosError(
            f"the driver used more memory than its container has, and was killed: {used}; what "
            "pre_train collects is Python's: raise --spark-conf spark.driver.memoryOverhead, or "
            "spark.driver.memory for the JVM",
            exit_code=ExitCode.RESOURCES,
        )
    said = _EXITED.search(output.diagnostics)
    codes = [code for code in ExitCode if said is not None and code == int(said[1])]
    return TfosError(
        f"{application} ended {output.final_status or output.state or 'unseen'} without a record "
        f"of the run: {why or 'YARN says no more'} (`tfos logs {application}` has its output)",
        exit_code=codes[0] if codes else ExitCode.INFRASTRUCTURE,
    )
