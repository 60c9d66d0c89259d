"""Make one archive of an environment, once: the next call takes it from the cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfos.environment_spec import EnvironmentSpec
from tfos.environments.archive import write_archive
from tfos.environments.conda import pack_conda
from tfos.environments.contents import PackedFile, editable_files, fingerprint, installed_files
from tfos.environments.inspection import Inspection, inspect_environment
from tfos.environments.interpreter import compile_bytecode, copy_interpreter
from tfos.environments.progress import Progress, in_words, percent_of
from tfos.errors import ConfigError, InfrastructureError
from tfos.files.cache import cache_directory, locked
from tfos.files.private import refuse_foreign

__all__ = ["KEPT_ARCHIVES", "PackedEnvironment", "pack"]

KEPT_ARCHIVES = 3
"""How many archives the cache keeps: those used last."""

_INSTEAD = "let XDG_CACHE_HOME name another directory"


@dataclass(frozen=True)
class PackedEnvironment:
    """An archive of an environment, in the local cache.

    Parameters
    ----------
    archive
        The file; its name stands for its content.
    size_bytes
        The file's size.
    inspection
        What the environment is.
    is_new
        Whether it was packed now, not taken from the cache.
    """

    archive: Path
    size_bytes: int
    inspection: Inspection
    is_new: bool


def pack(
    spec: EnvironmentSpec, progress: Progress, *, cache: Path | None = None
) -> PackedEnvironment:
    """Return an archive of a ``venv:`` or ``conda:`` environment, packed now or before.

    Unpacked anywhere as ``environment``, its Python is ``./environment/bin/python``. From the cache
    it takes two to four seconds, packing 2 GB some 30 to 70. Another process that packs into the
    same cache is waited for. Interrupted, it leaves nothing.

    Parameters
    ----------
    progress
        Told every step, and how much is packed.
    cache
        Where archives are kept; by default ``$XDG_CACHE_HOME/tfos/environments``.

    Raises
    ------
    ConfigError
        If there is no such environment, or a tool for packing it is missing.
    InfrastructureError
        If its interpreter cannot be moved, or there is no room for the archive.
    """
    inspection = inspect_environment(spec)
    if inspection.system_site:
        raise ConfigError(
            f"--env {spec} also imports packages from outside of itself: set "
            f"include-system-site-packages = false in {inspection.prefix}/pyvenv.cfg, and install "
            "there what is then missing"
        )
    directory = cache or cache_directory(os.environ, "environments")
    refuse_foreign(directory, instead=_INSTEAD, error=InfrastructureError)
    name, installed, editable = _listed(inspection)
    archive = directory / name
    is_new = not archive.exists() and _make(inspection, installed, editable, archive, progress)
    size_bytes = archive.stat().st_size
    if not is_new:
        progress.say(f"{spec} was packed before: {archive} ({in_words(size_bytes)})")
    _forget_others(archive)
    return PackedEnvironment(archive, size_bytes, inspection, is_new)


def _listed(inspection: Inspection) -> tuple[str, list[PackedFile], list[PackedFile]]:
    """Return the archive's name, and the installed and the editable files that are to be in it."""
    try:
        installed, editable = installed_files(inspection), editable_files(inspection)
        name = f"tfos-env-{fingerprint(inspection, installed, editable)}.tar.gz"
    except OSError as error:
        raise ConfigError(f"--env {inspection.spec} cannot be read: {error}") from error
    return name, installed, editable


def _make(
    inspection: Inspection,
    installed: list[PackedFile],
    editable: list[PackedFile],
    archive: Path,
    progress: Progress,
) -> bool:
    """Bring `archive` into the cache, whole; False if another process did meanwhile."""
    with locked(
        archive.parent,
        lambda: progress.say("another process is packing: waiting for it"),
        error=InfrastructureError,
        instead=_INSTEAD,
    ) as work:
        if archive.exists():
            return False
        aside = work / archive.name
        _build(inspection, installed, editable, aside, progress)
        if _listed(inspection)[0] != archive.name:
            raise InfrastructureError(
                f"--env {inspection.spec} changed while it was packed: try again once it does not"
            )
        aside.rename(archive)
    return True


def _build(
    inspection: Inspection,
    installed: list[PackedFile],
    editable: list[PackedFile],
    target: Path,
    progress: Progress,
) -> None:
    began = time.monotonic()
    total = sum(file.size_bytes for file in (*installed, *editable))
    progress.say(
        f"packing {inspection.spec}: {len(installed) + len(editable)} files, {in_words(total)}"
    )
    if inspection.spec.kind == "conda":
        pack_conda(inspection, editable, target)
    else:
        # The path that the interpreter will report: free of links.
        copy = Path(os.path.realpath(target.parent)) / "environment"
        site = copy_interpreter(inspection, copy)
        _copy_editable(editable, copy, site)
        files = [*_files_of(copy), *_placed(installed, site.relative_to(copy))]
        total += sum(path.stat().st_size for _, path in files[: len(files) - len(installed)])
        write_archive(target, files, percent_of(total, progress))
    progress.percent(100)
    progress.say(
        f"packed {in_words(target.stat().st_size)} in {time.monotonic() - began:.0f} s; "
        "kept for the next run"
    )


def _copy_editable(editable: list[PackedFile], copy: Path, site: Path) -> None:
    """Copy editable packages beside the interpreter, so that it can compile them."""
    try:
        for file in editable:
            place = site / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file.path, place)
    except OSError as error:
        raise InfrastructureError(
            f"an editable package could not be copied: {error}; {_INSTEAD}"
        ) from error
    if editable:
        compile_bytecode(copy, site)


def _files_of(directory: Path) -> Iterator[tuple[str, Path]]:
    for current, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = Path(current, name)
            yield path.relative_to(directory).as_posix(), path


def _placed(files: list[PackedFile], site: Path) -> Iterator[tuple[str, Path]]:
    return ((f"{site.as_posix()}/{file.name}", file.path) for file in files)


def _forget_others(archive: Path) -> None:
    """Remove archives that were not used of late; `archive` is in use now."""
    # Another process may remove the same, or the cache may be another user's.
    with contextlib.suppress(OSError):
        os.utime(archive)
        others = (path for path in archive.parent.glob("tfos-env-*.tar.gz") if path != archive)
        by_use = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        for old in by_use[KEPT_ARCHIVES - 1 :]:
            old.unlink()
