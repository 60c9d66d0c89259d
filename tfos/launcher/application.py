"""Load the user's application file on the driver and find the Job class in it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

import cloudpickle

from tfos.base import Job
from tfos.errors import ConfigError, ExitCode, JobDefinitionError, TfosError

__all__ = ["UserCodeError", "load_job", "one_line", "pickle_job", "user_traceback"]


class UserCodeError(TfosError):
    """The user's code raised on the driver (attribute ``user_traceback``)."""

    exit_code = ExitCode.USER_CODE
    user_traceback: str


def load_job(app: Path, class_name: str | None) -> Job:
    """Import `app` and build its Job. Runs on the driver.

    The application's own directory goes on ``sys.path``, so that it can import its neighbours.

    Raises
    ------
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
            f"{app.name}: {job_class.__name__}() raised {one_line(error)}; "
            "tfos builds the Job with no arguments",
            user_traceback=user_traceback(error),
        ) from error


def pickle_job(job: Job) -> bytes:
    """Pickle the Job by value: training processes need not find its module.

    Modules beside the application are pickled by value too.

    Raises
    ------
    JobDefinitionError
        If an attribute cannot be pickled; says which.
    """
    home = getattr(sys.modules.get(type(job).__module__), "__file__", None)
    neighbours = [] if home is None else _modules_in(Path(home).resolve().parent)
    for module in neighbours:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(job))
    except Exception as error:
        culprits = [n for n, v in vars(job).items() if not _picklable(v)]
        what = f"its attribute {culprits[0]!r}" if culprits else "it"
        raise JobDefinitionError(
            f"{type(job).__name__} cannot be sent to the training processes: {what} "
            f"cannot be pickled ({one_line(error)}); do not keep Spark objects, files or locks "
            "on the Job"
        ) from error
    finally:
        for module in neighbours:
            cloudpickle.unregister_pickle_by_value(module)


def user_traceback(error: BaseException) -> str:
    """Format a traceback without tfos's own frames, unless nothing else is left."""
    ours = str(Path(__file__).resolve().parent.parent)
    formatted = traceback.TracebackException.from_exception(error, compact=True)
    kept = [frame for frame in formatted.stack if not _inside(frame.filename, ours)]
    if kept:
        formatted.stack = traceback.StackSummary.from_list(kept)
    return "".join(formatted.format()).rstrip()


def _import(app: Path) -> ModuleType:
    path = app.resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{app} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"importing {app} raised {one_line(error)}", user_traceback=user_traceback(error)
        ) from error
    return module


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


def _modules_in(directory: Path) -> list[ModuleType]:
    def is_neighbour(module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return file is not None and Path(file).resolve().parent == directory

    return [m for name, m in list(sys.modules.items()) if name != "__main__" and is_neighbour(m)]


def _picklable(value: object) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _inside(filename: str, directory: str) -> bool:
    return filename.startswith((directory, "<frozen"))


def one_line(error: BaseException) -> str:
    """Return an error's type and text on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
