"""Load the user's application file on the driver and find the Job class in it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

from tfos.base import Job
from tfos.errors import ExitCode, JobDefinitionError, TfosError
from tfos.fault.failures.error_text import headline, user_traceback
from tfos.launcher.application.archive import check_module_name, home_of_file

__all__ = ["UserCodeError", "load_job"]


class UserCodeError(TfosError):
    """The user's code raised on the driver (attribute ``user_traceback``)."""

    exit_code = ExitCode.USER_CODE
    user_traceback: str


def load_job(app: Path, class_name: str | None) -> Job:
    """Import `app` as a module of its own name, and build its Job. Runs on the driver.

    The application's own directory goes on ``sys.path``, so that it can import its neighbours.

    Raises
    ------
    ConfigError
        If a file of that name cannot be imported, or would hide another module.
    JobDefinitionError
        If the file holds no Job subclass, several without a name to choose by, or not that name.
    UserCodeError
        If importing it or building the object raises.
    """
    module = _import(app)
    job_class = _choose(_job_classes(module), app, class_name)
    try:
        return job_class()
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"{app.name}: {job_class.__name__}() raised {headline(error)}; "
            "tfos builds the Job with no arguments",
            user_traceback=user_traceback(error),
        ) from error


def _import(app: Path) -> ModuleType:
    home = home_of_file(app)
    check_module_name(home)
    for below in reversed(home.paths):
        sys.path.insert(0, str(home.directory / below))
    try:
        __import__(home.module)  # importlib's own function would show in tracebacks
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"importing {app} raised {headline(error)}", user_traceback=user_traceback(error)
        ) from error
    return sys.modules[home.module]


def _job_classes(module: ModuleType) -> dict[str, type[Job]]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Job)
        and value is not Job
        and value.__module__ == module.__name__
    }


def _choose(classes: dict[str, type[Job]], app: Path, class_name: str | None) -> type[Job]:
    names = ", ".join(sorted(classes))
    if class_name is not None:
        if class_name not in classes:
            raise JobDefinitionError(
                f"{app} has no Job subclass {class_name}; it has: {names or 'none'}"
            )
        return classes[class_name]
    if not classes:
        raise JobDefinitionError(
            f"{app} defines no subclass of tfos.Job; define one with pre_train and train"
        )
    if len(classes) > 1:
        raise JobDefinitionError(
            f"{app} defines several Job subclasses ({names}); choose one: {app}:{min(classes)}"
        )
    return next(iter(classes.values()))
