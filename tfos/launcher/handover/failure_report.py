"""Write a failed run's report for people: the first cause, what followed, what went before. Pure.

The same records, whole, are the JSON report beside the checkpoints and in the run's record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfos.fault.failures.restart_policy import Incident
from tfos.launcher.handover.run_directory import application_of_container
from tfos.terminal import printable

__all__ = ["render_failures"]

_LAST_LINES = 20
_STACK_LINES = 60
_COMPARED = 200


def render_failures(
    failures: Sequence[Mapping[str, Any]], incidents: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the report, several lines without a last newline; empty without failures.

    Whatever the records hold, a terminal may show it (`tfos.terminal.printable`).

    Parameters
    ----------
    failures
        Failure records, the cause first.
    incidents
        What restarts answered before; see `tfos.fault.failures.restart_policy.Incident.to_json`.
    """
    if not failures:
        return ""
    first, *rest = failures
    lines = [f"first failure: {first['key']}", *_indented(_body(first))]
    if rest:
        lines.append("what followed:")
        lines.extend(f"  {record['key']}: {record['message']}" for record in rest)
    if incidents:
        lines.append("restarts before:")
        lines.extend(f"  {Incident.headline(incident)}" for incident in incidents)
    return "\n".join(map(printable, lines))


def _body(record: Mapping[str, Any]) -> list[str]:
    lines = [str(record["message"])]
    place = [f"host {record['host']}" if record["host"] else "", f"pid {record['pid']}"]
    if record["step"] >= 0:
        place.append(f"step {record['step']}")
    if record["exit_code"] is not None:
        place.append(f"exit code {record['exit_code']}")
    if record["signal_name"]:
        place.append(f"signal {record['signal_name']}")
    lines.append(", ".join(part for part in place if part))
    if record["traceback"]:
        lines.extend(["", *str(record["traceback"]).splitlines()])
    if record["stacks"]:
        lines.extend(["", "its threads at the end:"])
        lines.extend(f"  {line}" for line in str(record["stacks"]).splitlines()[:_STACK_LINES])
    if last_lines := _news(record["last_lines"], str(record["traceback"])):
        lines.extend(["", "its last lines:"])
        lines.extend(f"  {line}" for line in last_lines[-_LAST_LINES:])
    if record["logs"]:
        lines.extend(["", *_where_logs_are(str(record["logs"]))])
    if record["hint"]:
        lines.extend(["", f"hint: {record['hint']}"])
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
