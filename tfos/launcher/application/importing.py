"""How a training process imports the application: as ordinary modules, from the unpacked files.

Their code carries the paths of the user's own files, so that tracebacks and warnings show these;
the text that goes with them is the snapshot's, on every host and even if a file has changed since.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from types import CodeType, ModuleType

from tfos.launcher.application.job_state import keep_source
from tfos.launcher.application.shipped import UnpackedApplication
from tfos.launcher.application.spark_stand_in import spark_stood_in

__all__ = ["import_as_parent", "import_from"]


_VARIABLE = "TFOS_APPLICATION"


def import_from(application: UnpackedApplication) -> None:
    """Put the application's directories first on ``sys.path``; once per process.

    Processes that this one starts by `multiprocessing` import from there as well.
    """
    root = os.path.realpath(application.directory)
    _install_finder(root, application.home)
    sys.path[:0] = [os.path.join(root, below) if below else root for below in application.paths]
    os.environ[_VARIABLE] = json.dumps([root, application.home])


def import_as_parent() -> None:
    """Import as the training process does that spawned this one, which gave it its ``sys.path``."""
    if _VARIABLE in os.environ:
        _install_finder(*json.loads(os.environ[_VARIABLE]))


def _install_finder(root: str, home_directory: str) -> None:
    extensions = (ExtensionFileLoader, EXTENSION_SUFFIXES)

    class Loader(_Loader):
        unpacked, home = root, home_directory

    def finder(path: str) -> FileFinder:
        if os.path.commonpath([root, os.path.abspath(path)]) != root:
            raise ImportError(f"{path} is not of the application")
        return FileFinder(path, extensions, (Loader, [".py"]))

    sys.path_hooks.insert(0, finder)


class _Loader(SourceFileLoader):
    """Compiles a source file under the name that it has for the user."""

    unpacked: str
    home: str

    def get_code(self, fullname: str) -> CodeType:
        """Compile anew: bytecode kept beside the file would hold the other name."""
        data = self.get_data(self.path)
        shown = os.path.join(self.home, os.path.relpath(self.path, self.unpacked))
        keep_source(shown, importlib.util.decode_source(data))
        code: CodeType = compile(data, shown, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; lines that are for Spark do nothing here."""
        if b"pyspark" not in self.get_data(self.path):
            super().exec_module(module)
            return
        with spark_stood_in():
            super().exec_module(module)
