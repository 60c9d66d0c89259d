"""Errors that the state of the machine causes: full disks, exhausted limits, missing rights.

None of them is a defect of tfos. They come as an OSError of whichever call met them first, and
are told here by what is wrong with the machine and what mends it.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tfos.account import user_name
from tfos.errors import ConfigError, ExitCode, InfrastructureError, TfosError

__all__ = ["check_umask", "current_directory", "explained_machine_faults", "machine_fault"]

_TMPDIR: Final = "set TMPDIR to a directory on another disk"
_FULL_BELOW_BYTES: Final = 1 << 20


def machine_fault(error: BaseException) -> TfosError | None:
    """Return the error that the state of the machine amounts to; None where it is no fault of it.

    Exit codes: 2 for limits, rights and read-only places, which stay until somebody changes them;
    3 for memory; 5 for disks that are full.
    """
    if isinstance(error, MemoryError):
        return _no_memory("this process")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return _no_process("thread")
    if not isinstance(error, OSError):
        return None
    if "No usable temporary directory" in str(error):
        return _no_temporary_directory()
    explain = _BY_NUMBER.get(error.errno or 0)
    return None if explain is None else explain(_place(error))


@contextmanager
def explained_machine_faults() -> Iterator[None]:
    """Raise what `machine_fault` makes of an error in the block; others pass as they are."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        fault = None if isinstance(error, TfosError) else machine_fault(error)
        if fault is None:
            raise
        raise fault from error


def check_umask() -> None:
    """Check that this process may use the files it makes; raises ConfigError otherwise."""
    mask = os.umask(0o077)
    os.umask(mask)
    if mask & 0o700:
        raise ConfigError(
            f"umask is {mask:04o}: it denies you the files that you make; set `umask 022` or "
            "`umask 077`"
        )


def current_directory() -> str:
    """Return the absolute path of the current directory; raises ConfigError where it is gone."""
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the current directory cannot be used ({error.strerror}): change to another"
        ) from error


def _place(error: OSError) -> str:
    return "" if error.filename is None else os.fsdecode(error.filename)


def _full(what: str) -> Callable[[str], TfosError]:
    def explain(place: str) -> TfosError:
        where = f" for {place}" if place else _full_directories()
        return InfrastructureError(f"{what}{where}: make room there, or {_TMPDIR}")

    return explain


def _full_directories() -> str:
    """Name the usual suspects that are full: an error of writing does not name its file."""
    full = []
    for directory in dict.fromkeys((os.environ.get("TMPDIR") or "/tmp", os.curdir)):
        try:
            if shutil.disk_usage(directory).free < _FULL_BELOW_BYTES:
                full.append(os.path.abspath(directory))
        except OSError:
            continue
    return f" in {' and '.join(full)}" if full else ""


def _no_temporary_directory() -> TfosError:
    given = os.environ.get("TMPDIR")
    tried = ", ".join(dict.fromkeys([*([given] if given else []), "/tmp", "/var/tmp"]))
    if full := _full_directories():
        return InfrastructureError(f"no space is left{full}: make room there, or {_TMPDIR}")
    return ConfigError(
        f"no directory for temporary files can be written ({tried}): set TMPDIR to one that "
        f"user {user_name()} may write"
    )


def _read_only(place: str) -> TfosError:
    return ConfigError(
        f"{place or 'a file'} cannot be written, its file system is read-only: name another place; "
        "for temporary files set TMPDIR"
    )


def _denied(place: str) -> TfosError | None:
    if not place:
        return None
    return ConfigError(f"{place} may not be used by user {user_name()}: permission denied")


def _too_large(place: str) -> TfosError:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = "" if soft == resource.RLIM_INFINITY else f" (`ulimit -f` is {soft >> 10} KiB)"
    return ConfigError(
        f"{place or 'a file'} would be larger than this user's files may be{limit}: raise the limit"
    )


def _no_descriptor(place: str) -> TfosError:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ConfigError(
        f"this process may open no more than {soft} files: raise the limit with `ulimit -n "
        f"{min(4096, hard) if hard > 0 else 4096}`"
    )


def _no_descriptor_at_all(place: str) -> TfosError:
    return ConfigError("this machine has no free file descriptors: raise sysctl fs.file-max")


def _no_process(what: str = "process") -> TfosError:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = "" if soft == resource.RLIM_INFINITY else f" (`ulimit -u` is {soft})"
    return ConfigError(
        f"user {user_name()} may start no further {what}{limit}: raise the limit of processes and "
        "threads, in a container its pids limit"
    )


def _no_memory(what: str) -> TfosError:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limit = "" if soft == resource.RLIM_INFINITY else f" (`ulimit -v` is {soft >> 10})"
    return TfosError(
        f"{what} gets no more memory{limit}: free some on this machine, or raise the limit",
        exit_code=ExitCode.RESOURCES,
    )


_BY_NUMBER: Final[dict[int, Callable[[str], Any]]] = {
    errno.ENOSPC: _full("no space is left"),
    errno.EDQUOT: _full("Disk quota exceeded"),
    errno.EROFS: _read_only,
    errno.EACCES: _denied,
    errno.EPERM: _denied,
    errno.EFBIG: _too_large,
    errno.EMFILE: _no_descriptor,
    errno.ENFILE: _no_descriptor_at_all,
    errno.EAGAIN: lambda place: _no_process(),
    errno.ENOMEM: lambda place: _no_memory("a process"),
}
