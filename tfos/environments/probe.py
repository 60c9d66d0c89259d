"""Print what an environment is, as JSON: run by its own interpreter, so it imports nothing of tfos.

``python -I probe.py``. What is installed editable is found by the import system itself, whatever
means the installer took.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import platform
import re
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

# What lies beside packages in a project's directory without being one of them.
_NO_PACKAGES = {"benchmarks", "conftest", "docs", "examples", "noxfile", "setup", "test", "tests"}


def main() -> None:
    """Print the description of the interpreter that runs this."""
    site_packages = _site_packages()
    # A project's directory on the path may describe again what site-packages does.
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(distribution.metadata["Name"], distribution)
    editables = [
        _editable(distribution, site_packages)
        for distribution in found.values()
        if _is_editable(distribution, site_packages)
    ]
    description = {
        "version": list(sys.version_info[:3]),
        "build": f"{sys.version} {platform.python_implementation()}",
        "machine": platform.machine(),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "base_executable": getattr(sys, "_base_executable", sys.executable),
        "stdlib": sysconfig.get_path("stdlib"),
        "platstdlib": sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}),
        "site_packages": site_packages,
        "system_site": _sees_system_packages(),
        "editables": editables,
        "foreign_paths": _foreign_paths(site_packages, editables),
    }
    json.dump(description, sys.stdout)


def _site_packages() -> list[str]:
    paths = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    if sys.prefix == sys.base_prefix:
        # Distributions have directories of their own, such as dist-packages.
        paths += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    real = {os.path.realpath(path): None for path in paths if os.path.isdir(path)}
    return list(real)


def _sees_system_packages() -> bool:
    """Say whether a virtual environment also imports what its base interpreter has installed."""
    try:
        with open(os.path.join(sys.prefix, "pyvenv.cfg"), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    found = re.search(r"^\s*include-system-site-packages\s*=\s*(\w+)", text, re.MULTILINE)
    return found is not None and found[1].lower() == "true"


def _inside(path: str, directories: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == each or real.startswith(each + os.sep) for each in directories)


def _is_editable(distribution: Distribution, site_packages: Sequence[str]) -> bool:
    if not _inside(_metadata(distribution), site_packages):
        return True  # as setup.py develop left it
    try:
        url = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(url.get("dir_info", {}).get("editable"))


def _metadata(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", None) or distribution.locate_file(""))


def _editable(distribution: Distribution, site_packages: Sequence[str]) -> dict[str, Any]:
    """Return where the packages of an editable installation are, and what only finds them."""
    sources = [
        (f"{name}{suffix}", path)
        for name in _top_level_names(distribution)
        for suffix, path in _places(name)
        if not _inside(path, site_packages)
    ]
    metadata = _metadata(distribution)
    if not _inside(metadata, site_packages):
        sources.append((os.path.basename(metadata), metadata))
    finders = [
        str(file)
        for file in distribution.files or ()
        if "/" not in str(file) and str(file).endswith((".pth", ".py"))
    ]
    finders.append(f"{os.path.basename(metadata)}/direct_url.json")
    return {
        "name": distribution.metadata["Name"],
        "sources": sources,
        "finders": finders,
    }


def _top_level_names(distribution: Distribution) -> list[str]:
    listed = (distribution.read_text("top_level.txt") or "").split()
    if listed:
        return listed
    names = {re.sub(r"[-.]+", "_", distribution.metadata["Name"] or "")}
    for file in distribution.files or ():
        if str(file).endswith(".pth"):
            names.update(_names_of_pth(str(distribution.locate_file(file))))
    return sorted(name for name in names if name.isidentifier())


def _names_of_pth(file: str) -> set[str]:
    directories = [path for path in _pth_lines(file) if os.path.isdir(path)]
    found = {module.name for module in pkgutil.iter_modules(directories)}
    return {name for name in found if name not in _NO_PACKAGES and not name.startswith("_")}


def _pth_lines(file: str) -> list[str]:
    """Return the directories that a ``.pth`` file adds to the path."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            stripped = [line.strip() for line in lines]
    except OSError:
        return []
    return [
        os.path.join(os.path.dirname(file), line)
        for line in stripped
        if line and not line.startswith(("#", "import ", "import\t"))
    ]


def _places(name: str) -> list[tuple[str, str]]:
    """Return where a package is, or a module with the end of its file's name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [("", path) for path in spec.submodule_search_locations if os.path.isdir(path)]
    if not spec.origin or not os.path.isfile(spec.origin):
        return []
    return [("." + os.path.basename(spec.origin).partition(".")[2], spec.origin)]


def _foreign_paths(site_packages: Sequence[str], editables: Sequence[dict[str, Any]]) -> list[str]:
    """Return directories that hand-written ``.pth`` files add, which no package stands for."""
    ours = {finder for editable in editables for finder in editable["finders"]}
    found: set[str] = set()
    for directory in site_packages:
        for name in sorted(os.listdir(directory)):
            if name.endswith(".pth") and name not in ours:
                found.update(
                    path
                    for path in _pth_lines(os.path.join(directory, name))
                    if os.path.isdir(path) and not _inside(path, site_packages)
                )
    sources = [path for editable in editables for _, path in editable["sources"]]
    return sorted(
        path
        for path in found
        if not any(_inside(each, [os.path.realpath(path)]) for each in sources)
    )


if __name__ == "__main__":
    main()
