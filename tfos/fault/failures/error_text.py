"""What an exception says in one line: its type, its telling line, the user's line of code. Pure.

An exception may come from anybody's code: nothing here fails, whatever its own methods do.
"""

from __future__ import annotations

import builtins
import re
import sysconfig
import traceback
from bdb import BdbQuit
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tfos

__all__ = [
    "Telling",
    "builtin_kind",
    "headline",
    "last_error",
    "leaves_of",
    "repr_of",
    "telling",
    "text_of",
    "told_by",
    "user_traceback",
]

_NO_TERMINAL = (
    "breakpoint() or pdb was called, and this process has no terminal; `tfos debug` takes the same "
    "command line and runs pre_train and train in yours"
)
_MAX_TEXT = 200_000
_MAX_LINE = 2_000
_MAX_REPR = 200
_MAX_DEPTH = 20
"""Causes and nested groups that are looked into."""

_USER_CODE = "in user code:"
_TRACEBACK = "Traceback (most recent call last):"
_LAYER = "Exception encountered when calling"
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(, in (?P<name>.*?))?\s*\**$')
_TYPED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(: (?P<line>.*))?$")
_ROOT_ERROR = re.compile(r"^\(0\) \w+:\s*")
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
_DETECTED = re.compile(r"^Detected at node '?(?P<node>[^' ]+)'?")
_NOISE = re.compile(r"\{\{function_node [^}]*\}\}\s?| ?\[Op:[^\]]*\]( name: ?\S*)?|\[\[.*?\]\]")
_SKIPPED = (
    "Graph execution error:",
    "<stack traces unavailable>",
    "Additional GRPC error information",
    ":UNKNOWN:Error received from peer",
)

_CARRIERS = ("tensorflow.", "pyspark.", "py4j.")
"""Packages whose exceptions hold the traceback of a Python exception that went through them."""

_OURS = str(Path(tfos.__file__).resolve().parent) + "/"
_LIBRARIES = tuple(
    f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_LIBRARY_PARTS = ("/lib/python3.", "/dist-packages/", "/pyspark/", "/__autograph_generated_file")


@dataclass(frozen=True)
class Telling:
    """What a text says.

    Parameters
    ----------
    kind
        The type of the exception that the text tells of, without its module.
    line
        The line that says most; empty where there is none.
    place
        The line of user code that it names, as people write it; empty where it names none.
    node
        The node of TensorFlow's graph that it names; empty where it names none.
    """

    kind: str
    line: str
    place: str = ""
    node: str = ""

    def __str__(self) -> str:
        said = f"{self.kind}: {self.line}" if self.line else self.kind
        where = "; ".join(
            part for part in (f"node {self.node}" if self.node else "", self.place) if part
        )
        return f"{said} ({where})" if where else said


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, bounded; says so where that itself fails."""
    try:
        text = _NO_TERMINAL if isinstance(error, BdbQuit) else str(error)
        # An exact str of a bounded length, whatever subclass of it was returned.
        exact = str.__getitem__(text, slice(0, _MAX_TEXT))
        if str.__len__(text) > _MAX_TEXT:
            exact += f"\n... ({str.__len__(text):,} characters)"
        return exact.encode("utf-8", "backslashreplace").decode("utf-8")
    except (Exception, SystemExit) as second:
        return f"its __str__ raised {type(second).__name__}"


def repr_of(value: object) -> str:
    """Return ``repr(value)`` on one line, bounded; says so where that itself fails."""
    try:
        text = " ".join(str.__getitem__(repr(value), slice(0, _MAX_TEXT)).split())
    except (Exception, SystemExit) as second:
        return f"<a {type(value).__name__} whose __repr__ raised {type(second).__name__}>"
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}..."


def headline(error: BaseException) -> str:
    """Return one line: type, telling line, and the line of user code where it was raised."""
    try:
        return _headline(error)
    except Exception as second:  # whatever the user's classes do
        return f"{type(error).__name__} (of which no more can be told: {type(second).__name__})"


def _headline(error: BaseException) -> str:
    leaves = leaves_of(error)
    said = told_by(leaves[0])
    line = str(said if said.place else replace(said, place=_raised_at(leaves[0])))
    if len(leaves) > 1 or leaves[0] is not error:
        line += f", the first of {len(leaves)} in {type(error).__name__}"
    cause = leaves[0].__cause__
    if cause is not None:
        caused = told_by(cause)
        if not caused.line or caused.line not in line:
            line += f", caused by {replace(caused, place='', node='')}"
    return line[:_MAX_LINE]


def told_by(error: BaseException) -> Telling:
    """Return what one exception says."""
    kind = type(error)
    carries = kind.__module__.startswith(_CARRIERS)
    return telling(kind.__name__, text_of(error), carries=carries)


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group, however nested, in order; another one alone."""
    found: list[BaseException] = []
    pending = [(error, 0)]
    while pending:
        each, depth = pending.pop(0)
        parts = getattr(each, "exceptions", ()) if _is_group(each) and depth < _MAX_DEPTH else ()
        pending[:0] = [(part, depth + 1) for part in parts]
        if not parts:
            found.append(each)
    return found


def _is_group(error: BaseException) -> bool:
    # By name: Python 3.10 has none of its own, and a package that brings one.
    return any(kind.__name__ == "BaseExceptionGroup" for kind in type(error).__mro__)


def telling(kind: str, text: str, *, carries: bool = False) -> Telling:
    """Find what a text of an exception says, past what TensorFlow, Keras and Spark put around it.

    Parameters
    ----------
    kind
        The exception's type, by name.
    text
        Its whole text.
    carries
        Whether a traceback in it is that of the exception itself, which another language carried.
    """
    lines = text.partition("JVM stacktrace:")[0].splitlines()
    marks = [i for i, line in enumerate(lines) if line.endswith((_USER_CODE, _TRACEBACK))]
    found = _after_frames(lines, marks[-1]) if marks else None
    if found is not None and (carries or lines[marks[-1]].strip() == _USER_CODE):
        # What was raised within TensorFlow's own calls names them last: the user's is before.
        return replace(found, place=found.place or _last_place(lines))
    if found is not None:
        announced = _first_of([line.strip() for line in lines[: marks[-1]]])
        found = replace(found, place="")
        return Telling(kind, f"{announced} {found}" if announced.endswith(":") else announced)
    node = next((m["node"] for line in lines if (m := _DETECTED.match(line))), "")
    node = node or next(iter(_NODE.findall(text)), "")
    said = [_clean(line) for line in lines if not _is_around(line.strip())]
    line = _first_of(said) or _first_of([line.strip() for line in lines])
    return Telling(kind, line, _last_place(lines), node)


def _after_frames(lines: Sequence[str], mark: int) -> Telling | None:
    """Read the message that follows the frames of a traceback, or of AutoGraph's own form of it."""
    indent = _indent(lines[mark])
    frames = [i for i in range(mark + 1, len(lines)) if _FRAME.match(lines[i])]
    if lines[mark].strip() == _USER_CODE and frames:
        indent = _indent(lines[frames[0]])
    for number in range(mark + 1, len(lines)):
        line = lines[number]
        if line.strip() and _indent(line) <= indent and not _FRAME.match(line):
            break
    else:
        return None
    if (typed := _TYPED.match(line.strip())) is None:
        return None
    rest = [typed["line"] or "", *(each.strip() for each in lines[number + 1 :])]
    place = _last_place(lines[mark:number])
    return Telling(typed["type"].rpartition(".")[2], _first_of(rest), place)


def _first_of(lines: Sequence[str]) -> str:
    """Return the first line that says something; one that only announces goes with the next."""
    said: list[str] = []
    for line in lines:
        if not line or line.startswith(_LAYER):
            continue
        said.append(line)
        if not line.endswith(":") or len(said) == 3:
            break
    return " ".join(said) or next((line for line in lines if line), "")


def _is_around(line: str) -> bool:
    return (
        not line
        or line.startswith(_SKIPPED)
        or _DETECTED.match(line) is not None
        or _FRAME.match(line) is not None
        or line.endswith("root error(s) found.")
        or not _clean(line)
    )


def _clean(line: str) -> str:
    return _ROOT_ERROR.sub("", _NOISE.sub("", line).strip()).strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _last_place(lines: Sequence[str]) -> str:
    frames = (match for line in reversed(lines) if (match := _FRAME.match(line)))
    return next(
        (_place(m["file"], m["line"], m["name"]) for m in frames if _is_users(m["file"])), ""
    )


def _raised_at(error: BaseException) -> str:
    frames = list(_frames(error))
    users = [frame for frame in frames if _is_users(frame[0])]
    return _place(*users[-1]) if users else ""


def _frames(error: BaseException) -> Iterator[tuple[str, str, str]]:
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_filename, str(trace.tb_lineno), code.co_name
        trace = trace.tb_next


def _is_users(filename: str) -> bool:
    return not (
        filename.startswith((_OURS, "<frozen", *_LIBRARIES))
        or any(part in filename for part in _LIBRARY_PARTS)
    )


def _place(filename: str, line: str, name: str | None) -> str:
    where = f"{filename.rpartition('/')[2]}, line {line}"
    return f"{where}, in {name}" if name and name not in ("None", "<module>") else where


def last_error(lines: Sequence[str]) -> str:
    """Return type and text of the exception whose traceback ends a program's output, else ""."""
    marks = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    found = _after_frames(lines, marks[-1]) if marks else None
    return "" if found is None else str(replace(found, place=""))[:_MAX_LINE]


def user_traceback(error: BaseException) -> str:
    """Format a traceback without tfos's own frames, unless nothing else is left."""
    try:
        formatted = traceback.TracebackException.from_exception(error, compact=True)
        kept = [f for f in formatted.stack if not f.filename.startswith((_OURS, "<frozen"))]
        if kept:
            formatted.stack = traceback.StackSummary.from_list(kept)
        return "".join(formatted.format()).rstrip()
    except Exception as second:
        return f"{type(error).__name__} (its traceback cannot be shown: {type(second).__name__})"


def builtin_kind(name: str) -> type[BaseException] | None:
    """Return the built-in exception class of a name; None when there is none."""
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None
