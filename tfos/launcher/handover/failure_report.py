"""Write a failed run's report for people: the first cause, what followed, what went before. Pure.

The same records, whole, are the JSON report beside the checkpoints and in the run's record.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfos.fault.failures.record import Failure
from tfos.fault.failures.restart_policy import IncidentRecord
from tfos.launcher.handover.run_directory import application_of_container
from tfos.terminal import printable

__all__ = ["render_failures"]

_LAST_LINES = 20
_STACK_LINES = 60
_COMPARED = 200


def render_failures(failures: Sequence[Failure], incidents: Sequence[IncidentRecord] = ()) -> str:
    """Return the report, several lines without a last newline; empty without failures.

    Whatever the records hold, a terminal may show it (`tfos.terminal.printable`).

    Parameters
    ----------
    failures
        What failed, the cause first.
    incidents
        What restarts answered before.
    """
    if not failures:
        return ""
    first, *rest = failures
    lines = [f"first failure: {first.key}", *_indented(_body(first))]
    if rest:
        lines.append("what followed:")
        lines.extend(f"  {failure.key}: {failure.message}" for failure in rest)
    if incidents:
        lines.append("restarts before:")
        lines.extend(f"  {incident}" for incident in incidents)
    return "\n".join(map(printable, lines))


def _body(failure: Failure) -> list[str]:
    lines = [failure.message]
    place = [f"host {failure.host}" if failure.host else "", f"pid {failure.pid}"]
    if failure.step >= 0:
        place.append(f"step {failure.step}")
    if failure.exit_code is not None:
        place.append(f"exit code {failure.exit_code}")
    if failure.signal_name:
        place.append(f"signal {failure.signal_name}")
    lines.append(", ".join(part for part in place if part))
    if failure.traceback:
        lines.extend(["", *failure.traceback.splitlines()])
    if failure.stacks:
        lines.extend(["", "its threads at the end:"])
        lines.extend(f"  {line}" for line in failure.stacks.splitlines()[:_STACK_LINES])
    if last_lines := _news(failure.last_lines, failure.traceback):
        lines.extend(["", "its last lines:"])
        lines.extend(f"  {line}" for line in last_lines[-_LAST_LINES:])
    if failure.logs:
        lines.extend(["", *_where_logs_are(failure.logs)])
    if failure.hint:
        lines.extend(["", f"hint: {failure.hint}"])
    return lines


def _news(last_lines: Sequence[str], traceback: str) -> list[str]:
    """Return the lines without what the traceback shows: TensorFlow prints its errors as well."""
    shown = {line.strip()[:_COMPARED] for line in traceback.splitlines()}
    return [line for line in last_lines if line.strip()[:_COMPARED] not in shown]


def _where_logs_are(url: str) -> list[str]:
    """Name the container's page, and what still finds its output when YARN has moved it away."""
    container = url.split("/")[-2]
    application, _ = application_of_container(container)
    return [f"its container's output: {url}", f"  after the run: tfos logs {application}"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]
