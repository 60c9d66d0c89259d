"""The files of an application: where they lie, the name of its module, an archive of them."""

from __future__ import annotations

import io
import os
import re
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from tfos.errors import ConfigError

__all__ = [
    "LIMIT_BYTES",
    "ApplicationHome",
    "check_module_name",
    "home_of_directory",
    "home_of_file",
    "home_of_module",
    "pack_application",
]

LIMIT_BYTES = 64 << 20
"""Code is small: more than this is something else."""
_DATA_LIMIT_BYTES = 1 << 20
_DATA_SUFFIXES = (".csv", ".ini", ".json", ".toml", ".tsv", ".txt", ".yaml", ".yml")
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)|import[ \t]+([^#;\r\n]+))", re.MULTILINE)


@dataclass(frozen=True)
class ApplicationHome:
    """Where an application lives.

    Parameters
    ----------
    directory
        The directory of its file, or of the outermost package that the file is in.
    module
        The name that its file is imported by; ``__main__`` for a notebook or a driver script.
    paths
        Directories below `directory` that go on ``sys.path``, the first one first.
    """

    directory: Path
    module: str
    paths: tuple[str, ...] = ("",)


def home_of_file(app: Path) -> ApplicationHome:
    """Return the home of an application file.

    A file beside an ``__init__.py`` is a module of that package: relative imports work. Its own
    directory goes on ``sys.path`` as well, as for any script.

    Raises
    ------
    ConfigError
        If Python cannot import a file of that name.
    """
    path = app.resolve()
    if "." in path.stem:
        raise ConfigError(
            f"{app} cannot be imported: Python takes the dot in {path.stem!r} for a package's; "
            "rename the file"
        )
    directory, names = path.parent, [path.stem]
    while (directory / "__init__.py").is_file() and "." not in directory.name:
        names.insert(0, directory.name)
        directory = directory.parent
    below = "/".join(names[:-1])
    return ApplicationHome(directory, ".".join(names), ("", below) if below else ("",))


def home_of_module(module: ModuleType) -> ApplicationHome | None:
    """Return the home of an imported module; None for one that is installed, or has no file."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    path = Path(file).resolve()
    depth = module.__name__.count(".") + (path.name == "__init__.py")
    if depth >= len(path.parents) or _is_installed(path.parents[depth]):
        return None
    directory = path.parents[depth]
    below = "/".join(module.__name__.split(".")[:-1])
    paths = ("", below) if below and path.name != "__init__.py" else ("",)
    return ApplicationHome(directory, module.__name__, paths)


def home_of_directory(directory: Path) -> ApplicationHome | None:
    """Return `directory` as a notebook's home; None when no loaded module comes from it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("__main__", "tfos"):
            continue
        home = home_of_module(module)
        if home is not None and home.directory == directory:
            return ApplicationHome(directory, "__main__")
    return None


def check_module_name(home: ApplicationHome) -> None:
    """Check that the application's module hides no other; looks along ``sys.path``.

    Raises
    ------
    ConfigError
        If a module of Python, or an installed one, has the same name.
    """
    name = home.module.partition(".")[0]
    elsewhere = [p for p in sys.path if Path(p or ".").resolve() != home.directory]
    spec = PathFinder.find_spec(name, elsewhere)
    origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    what = "file" if "." not in home.module else "package"
    if name in sys.stdlib_module_names:
        owner = f"a module of Python {sys.version_info.major}.{sys.version_info.minor}"
    elif origin is not None and not origin.is_relative_to(home.directory):
        owner = f"an installed module ({origin})"
    elif home.module == name and (home.directory / name / "__init__.py").is_file():
        owner = "the package beside it"
    else:
        return
    raise ConfigError(
        f"the application's {what} is called {name!r}, which is the name of {owner}: one would "
        f"hide the other; rename the {what}"
    )


def pack_application(directory: Path) -> bytes:
    """Return a zip archive of the application in `directory`.

    It holds

    - the Python files there, and text files of data (``.csv``, ``.ini``, ``.json``, ``.toml``,
      ``.tsv``, ``.txt``, ``.yaml``, ``.yml``) of up to 1 MiB each;
    - packages (directories with an ``__init__.py``) with everything in them;
    - directories without one that a Python file imports from: Python and such text files in them.

    Hidden files and directories and links to directories stay out; so do files beside the
    application that the user may not read.

    Raises
    ------
    ConfigError
        If it is more than 64 MiB, or part of a package cannot be read.
    """
    target = io.BytesIO()
    total = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path, data in _contents(directory):
            total += len(data)
            if total > LIMIT_BYTES:
                raise ConfigError(
                    f"{directory} holds more than {LIMIT_BYTES >> 20} MiB of Python files and "
                    "packages, and all of them travel with the application: put the application "
                    "in a directory of its own"
                )
            member = path.relative_to(directory)
            info = zipfile.ZipInfo.from_file(path, member, strict_timestamps=False)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return target.getvalue()


def _contents(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files with what is in them; each is read once."""
    plain: dict[str, os.DirEntry[str]] = {}
    wanted: set[str] = set()
    for entry in _entries(directory):
        if not entry.is_dir(follow_symlinks=False):
            yield from _file(entry, wanted, everything=False)
        elif _is_package(entry):
            try:
                yield from _below(entry, wanted, everything=True)
            except PermissionError as error:
                raise ConfigError(
                    f"the package {entry.path} travels with the application, and you may not read "
                    f"{error.filename}: make it readable, or put the application in a directory of "
                    "its own"
                ) from error
        else:
            plain[entry.name] = entry
    while found := wanted & plain.keys():
        for name in sorted(found):
            with suppress(PermissionError):
                yield from _below(plain.pop(name), wanted, everything=False)


def _below(
    directory: os.DirEntry[str], wanted: set[str], *, everything: bool
) -> Iterator[tuple[Path, bytes]]:
    for entry in _entries(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry, wanted, everything=everything)
        else:
            yield from _file(entry, wanted, everything=everything)


def _file(
    entry: os.DirEntry[str], wanted: set[str], *, everything: bool
) -> Iterator[tuple[Path, bytes]]:
    """Yield a file if it is shipped; add the names that it imports to `wanted`."""
    is_python = entry.name.endswith(".py")
    is_data = everything or entry.name.endswith(_DATA_SUFFIXES)
    if not (entry.is_file() and (is_python or is_data)):
        return
    path = Path(entry.path)
    try:
        if not (is_python or everything) and entry.stat().st_size > _DATA_LIMIT_BYTES:
            return
        data = path.read_bytes() if entry.stat().st_size <= LIMIT_BYTES else bytes(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return  # another program's, which removed it meanwhile
    except PermissionError:
        if everything:
            raise
        return  # another user's: it cannot be imported on the driver either
    if is_python:
        wanted.update(_imported(data))
    yield path, data


def _imported(source: bytes) -> Iterator[str]:
    for from_name, names in _IMPORT.findall(source):
        for name in [from_name] if from_name else names.split(b","):
            yield name.strip().partition(b" ")[0].partition(b".")[0].decode(errors="replace")


def _entries(directory: os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        kept = [e for e in found if not e.name.startswith(".") and e.name != "__pycache__"]
    return sorted(kept, key=lambda entry: entry.name)


def _is_package(directory: os.DirEntry[str]) -> bool:
    # One that may not be looked into, such as another user's in /tmp, is none.
    return os.path.isfile(os.path.join(directory, "__init__.py"))


def _is_installed(directory: Path) -> bool:
    """Whether modules in `directory` are part of Python or of its environment."""
    roots = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")}
    in_packages = {"site-packages", "dist-packages"} & set(directory.parts)
    return bool(in_packages) or any(directory.is_relative_to(root) for root in roots)
