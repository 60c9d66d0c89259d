"""List the packages of an environment, and draw from them the name of its archive."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfos.environments.inspection import Inspection

__all__ = ["PackedFile", "editable_files", "fingerprint", "installed_files"]

# Changes with what an archive of the same packages holds, so that older ones are not taken.
_LAYOUT = "2"
_BYTECODE = ".pyc"
# Spark brings its own, in its own version, to every container.
_PYSPARK = re.compile(r"pyspark(-[^/]*\.(dist|egg)-info)?(/|$)", re.IGNORECASE)
# Whole contents are read of a project's files, unless they are data.
_DIGEST_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True)
class PackedFile:
    """A file to be packed.

    Parameters
    ----------
    name
        Its path under site-packages, with ``/`` between parts.
    path
        Where it is.
    size_bytes, mtime_ns
        Of what is packed: of a link's target.
    """

    name: str
    path: Path
    size_bytes: int
    mtime_ns: int


def installed_files(inspection: Inspection) -> list[PackedFile]:
    """Return the files in site-packages, without PySpark and what only finds editable packages.

    Links are followed: they may point out of the environment. Takes a second for 60,000 files.
    """
    # What tells where a project is on this machine is of no use elsewhere.
    left_out = {finder for each in inspection.editables for finder in each.finders}
    found: dict[str, PackedFile] = {}
    for directory in inspection.site_packages:
        for file in _walk(directory, directory, lambda name: bool(_PYSPARK.match(name))):
            if file.name not in left_out:
                found.setdefault(file.name, file)
    return list(found.values())


def editable_files(inspection: Inspection) -> list[PackedFile]:
    """Return the files of packages imported from projects' directories, without bytecode."""
    return [
        file
        for each in inspection.editables
        for name, source in each.sources
        for file in _source_files(name, source)
    ]


def _source_files(name: str, source: Path) -> Iterator[PackedFile]:
    if source.is_dir():
        yield from _walk(
            source, source.parent, lambda path: "__pycache__" in path or "/." in path, name
        )
    else:
        status = source.stat()
        yield PackedFile(name, source, status.st_size, status.st_mtime_ns)


def _walk(
    directory: Path, root: Path, left_out: Callable[[str], bool], top: str | None = None
) -> Iterator[PackedFile]:
    """Yield the files under `directory`, named from `root`, or by `top` instead of its own name."""
    # os.scandir tells a file's kind without a further look at it; links that lead around stop.
    pending = [(str(directory), frozenset({os.path.realpath(directory)}))]
    prefix = len(str(root)) + 1
    rename = None if top is None else (directory.name, top)
    while pending:
        current, above = pending.pop()
        with os.scandir(current) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            name = entry.path[prefix:]
            if rename is not None:
                name = rename[1] + name[len(rename[0]) :]
            if left_out(name):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in above:
                    pending.append((entry.path, above | {real}))
            elif entry.is_file():
                status = entry.stat()
                yield PackedFile(name, Path(entry.path), status.st_size, status.st_mtime_ns)


def fingerprint(
    inspection: Inspection, installed: Sequence[PackedFile], editable: Sequence[PackedFile]
) -> str:
    """Return 16 hexadecimal digits that stand for what an environment holds.

    Drawn from the interpreter's version and build, from every distribution's record of its files'
    checksums, from the contents of editable packages, and from the sizes of all files; of those
    that no record has, from their times too. The same packages on another machine or in another
    directory give the same. What it cannot see: an installed file that was edited by hand and kept
    its size.
    """
    digest = hashlib.sha256(f"{_LAYOUT}\n{inspection.build}\n{inspection.machine}\n".encode())
    for line in _conda_packages(inspection):
        digest.update(f"{line}\n".encode())
    owned: set[str] = set()
    for file in installed:
        if file.name.endswith(".dist-info/RECORD"):
            lines = sorted(_record(file.path))
            owned.update(name for name, _ in lines)
            digest.update(f"{file.name}\n{lines}\n".encode())
    for file in _sorted(installed):
        time = "" if file.name in owned else str(file.mtime_ns)
        digest.update(f"{file.name}\0{file.size_bytes}\0{time}\n".encode())
    for file in _sorted(editable):
        digest.update(f"{file.name}\0{file.size_bytes}\0{_content(file)}\n".encode())
    return digest.hexdigest()[:16]


def _sorted(files: Iterable[PackedFile]) -> list[PackedFile]:
    # Bytecode names the directory it was compiled in, and is created by mere use.
    kept = (
        file
        for file in files
        if not file.name.endswith((_BYTECODE, ".dist-info/RECORD", "/direct_url.json"))
    )
    return sorted(kept, key=lambda file: file.name)


def _record(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and checksum of a distribution's files, without scripts: these name a place."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            name = row[0] if row else ""
            if name and not name.startswith("../") and not name.endswith(_BYTECODE):
                checksum = row[1] if len(row) > 1 else ""
                yield name, "" if name.endswith("/direct_url.json") else checksum


def _conda_packages(inspection: Inspection) -> list[str]:
    directory = inspection.prefix / "conda-meta"
    # Their names hold version and build.
    return sorted(path.name for path in directory.glob("*.json"))


def _content(file: PackedFile) -> str:
    if file.size_bytes > _DIGEST_LIMIT_BYTES:
        return str(file.mtime_ns)
    return hashlib.sha256(file.path.read_bytes()).hexdigest()
