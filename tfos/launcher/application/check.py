"""Mistakes in an application that its text shows, found before anything is started. Pure.

The file is parsed and not run: importing it may import TensorFlow, and may need Spark. What only
running it can show (a class made by a function, a base class of another module) is left alone.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tfos.base import Job
from tfos.errors import JobDefinitionError
from tfos.fault.failures.error_text import repr_of

__all__ = ["check_job", "check_source"]

_METHODS: Final = {"pre_train": "spark", "train": "ctx", "shutdown": ""}
_REQUIRED: Final = ("pre_train", "train")
_ALIKE: Final = 0.75
# None of these holds a subclass of Job, nor a function that makes one.
_FOREIGN: Final = sys.stdlib_module_names | {
    *("horovod", "keras", "numpy", "pandas", "pyarrow", "pyspark", "scipy", "sklearn"),
    *("tensorflow", "tf_keras", "torch"),
}


def check_source(source: bytes, file: str, class_name: str | None) -> None:
    """Check an application file for mistakes that its text shows.

    Parameters
    ----------
    source
        The file's content.
    file
        The file, as the user calls it.
    class_name
        The class to run; None to run the only one.

    Raises
    ------
    JobDefinitionError
        If it is no Python, surely has no Job or not that one, or its Job lacks a method.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import warns, if anything does
            # Some errors of syntax are seen by the compiler alone: two arguments of one name.
            compile(source, file, "exec", dont_inherit=True)
            module = _Module(ast.parse(source, file))
    except SyntaxError as error:
        line = f': "{error.text.strip()}"' if error.text else ""
        raise JobDefinitionError(
            f"{file}, line {error.lineno}: {error.msg}{line} "
            f"(Python {sys.version_info.major}.{sys.version_info.minor})"
        ) from error
    except ValueError as error:
        raise JobDefinitionError(f"{file} is not a Python file: {error}") from error
    jobs = {name: each for name, each in module.classes.items() if each.is_job}
    if class_name is not None:
        if class_name not in module.names and not module.is_open:
            raise JobDefinitionError(
                f"{file} has no Job subclass {class_name}; it has: "
                f"{', '.join(sorted(jobs)) or 'none'}"
            )
        jobs = {name: each for name, each in jobs.items() if name == class_name}
    elif len(certain := sorted(name for name in jobs if name in module.always)) > 1:
        raise JobDefinitionError(
            f"{file} defines several Job subclasses ({', '.join(certain)}); choose one: "
            f"{file}:{certain[0]}"
        )
    elif not jobs and not module.may_have_job:
        raise JobDefinitionError(
            f"{file} defines no subclass of tfos.Job; define one with pre_train and train"
        )
    if len(jobs) == 1:
        ((name, found),) = jobs.items()
        if found.methods is not None:
            _check_methods(name, found.methods)


def check_job(job: Any) -> None:
    """Check a Job's methods. Runs on the driver.

    Raises
    ------
    JobDefinitionError
        If one is missing, misspelt, or takes other arguments; if `job` is no Job.
    """
    if not isinstance(job, Job):
        is_class = isinstance(job, type) and issubclass(job, Job)
        found = f"the class: {job.__name__}() makes one" if is_class else repr_of(job)
        raise JobDefinitionError(f"expected a tfos.Job, found {found}")
    name = type(job).__name__
    own = {n for n in dir(type(job)) if getattr(type(job), n) is not getattr(Job, n, None)}
    _check_methods(name, own | {n for n in vars(job) if callable(vars(job)[n])})
    for method, argument in _METHODS.items():
        try:
            inspect.signature(getattr(job, method)).bind(*([object()] if argument else []))
        except TypeError as error:
            expected = f"({', '.join(filter(None, ('self', argument)))})"
            raise JobDefinitionError(
                f"{name}.{method} must be callable as {method}{expected}: {error}"
            ) from error
        except ValueError:
            continue  # of a method that does not show its signature


def _check_methods(name: str, defined: Iterable[str]) -> None:
    given = set(defined)
    for method in _METHODS:
        if method in given:
            continue
        others = sorted(n for n in given - set(_METHODS) if not n.startswith("__"))
        alike = difflib.get_close_matches(method, others, 1, _ALIKE)
        # `training` beside `train` is a name like any other: only what is missing is misspelt.
        if alike and (method in _REQUIRED or alike[0].replace("_", "") == method):
            raise JobDefinitionError(f"{name} defines {alike[0]}; did you mean {method}?")
        if method in _REQUIRED:
            raise JobDefinitionError(
                f"{name} does not define {method}(self, {_METHODS[method]}), which every Job needs"
            )


@dataclass
class _Class:
    """A class of the file.

    Parameters
    ----------
    is_job
        Whether it surely derives from tfos.Job.
    may_be_job
        Whether it may.
    methods
        The names it defines, those of its bases in the file included; None where they are not
        all known.
    """

    is_job: bool
    may_be_job: bool
    methods: set[str] | None = field(default_factory=set)


class _Module:
    """What the text of a module says of its names."""

    def __init__(self, tree: ast.Module) -> None:
        self._modules: dict[str, str] = {}
        self.names: set[str] = set()
        self.classes: dict[str, _Class] = {}
        self.is_open = False
        """Whether there may be names that the text does not show."""
        body = [node for node in tree.body if not _is_guard(node)]
        self.always = {node.name for node in body if isinstance(node, ast.ClassDef)}
        """Classes that no condition stands before."""
        self._makes = False
        for node in _statements(body):
            self._read(node)
        for node in body:
            for inner in ast.walk(node):
                self._look_for_changes(inner)

    @property
    def may_have_job(self) -> bool:
        """Whether there may be a Job that is not among `classes`, or is one of them."""
        return self.is_open or self._makes or any(c.may_be_job for c in self.classes.values())

    def _read(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                self._bind(alias.asname or root, alias.name if alias.asname else root)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.is_open |= alias.name == "*"
                module = "." if node.level else f"{node.module}"
                self._bind(alias.asname or alias.name, f"{module}.{alias.name}")
        elif isinstance(node, ast.ClassDef):
            self.names.add(node.name)
            self.classes[node.name] = self._class(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                self._assign(target)
            self._makes |= node.value is not None and self._may_make_class(node.value)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self._assign(target)
        elif isinstance(node, ast.Expr):
            self.is_open |= self._may_make_class(node.value)

    def _look_for_changes(self, node: ast.AST) -> None:
        """See what code anywhere in the file, functions included, does to the classes."""
        if isinstance(node, ast.Global):
            self.names.update(node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            known = self.classes.get(node.value.id) if isinstance(node.value, ast.Name) else None
            if known is not None and known.methods is not None:
                known.methods.add(node.attr)
        elif isinstance(node, ast.Call) and not self._is_foreign(node.func):
            for argument in node.args:
                if isinstance(argument, ast.Name) and argument.id in self.classes:
                    self.classes[argument.id].methods = None

    def _bind(self, name: str, module: str) -> None:
        self.names.add(name)
        self._modules[name] = module

    def _assign(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                self.names.add(node.id)
                self.classes.pop(node.id, None)

    def _may_make_class(self, value: ast.expr) -> bool:
        """Whether evaluating it may make a class: it calls what is not known to make none."""
        return any(
            isinstance(node, ast.Call) and not self._is_foreign(node.func)
            for node in ast.walk(value)
        )

    def _class(self, node: ast.ClassDef) -> _Class:
        bases = [self._base(base) for base in node.bases]
        # A decorator or a metaclass may add what it likes.
        known = not node.keywords and all(self._is_foreign(d) for d in node.decorator_list)
        methods: set[str] | None = set()
        for base in bases:
            methods = None if methods is None or base.methods is None else methods | base.methods
        if methods is not None and known:
            methods |= set(_names_bound(node.body))
        return _Class(
            is_job=any(base.is_job for base in bases),
            may_be_job=not known or any(base.may_be_job for base in bases),
            methods=methods if known else None,
        )

    def _base(self, base: ast.expr) -> _Class:
        dotted = self._dotted(base)
        if dotted in ("tfos.Job", "tfos.base.Job"):
            return _Class(is_job=True, may_be_job=True)
        if isinstance(base, ast.Name) and base.id in self.classes:
            return self.classes[base.id]
        if dotted == "object":
            return _Class(is_job=False, may_be_job=False)
        # Even one of another library may bring a method.
        return _Class(is_job=False, may_be_job=not self._is_foreign(base), methods=None)

    def _is_foreign(self, node: ast.expr) -> bool:
        """Whether an expression names something that is surely no Job and makes none."""
        node = node.func if isinstance(node, ast.Call) else node
        dotted = self._dotted(node)
        if dotted is None:
            return False
        root = dotted.partition(".")[0]
        makers = ("type", "exec", "eval", "globals", "setattr", "__import__", "vars", "locals")
        if "." in dotted:
            return root in _FOREIGN
        return hasattr(builtins, root) and root not in makers

    def _dotted(self, node: ast.expr) -> str | None:
        """Return an expression's name from the module that it was imported from."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Subscript):  # such as Generic[T]
            return self._dotted(node.value)
        if not isinstance(node, ast.Name):
            return None
        return ".".join([self._modules.get(node.id, node.id), *parts])


def _is_guard(node: ast.stmt) -> bool:
    """Whether it is what runs in a script alone; an application is imported."""
    return isinstance(node, ast.If) and "'__main__'" in ast.unparse(node.test)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when the body does, those of its blocks included."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, block, []))
            for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                yield from _statements(part.body)


def _names_bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in _statements(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
