"""Imports point down only, rooms do not know each other, and `import tfos` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tfos"

LEVELS = [
    {"errors", "wire", "account", "architectures", "arguments", "setting_errors", "options"},
    {"machine_faults", "files", "master", "environment_spec"},
    {
        "config",
        "topology",
        "read_plan",
        "run_holder",
        "horovod_installed",
        "java",
        "terminal",
    },
    {"training_parts", "progress", "option_names"},
    # Settings' layers and what the rooms are made of; none of these knows another.
    {"config_files", "base", "arrow_feed", "fault", "frameworks", "registry"},
    {"horovod_build", "environments"},
    {"launcher"},
    {"cli", "testing"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# A framework adapter runs `train` with the context users write against, and takes the feed.
ALLOWED_SIDEWAYS = {
    ("frameworks", "base"),
    ("frameworks", "arrow_feed"),
}
HEAVY = ("tensorflow", "tf_keras", "keras", "pyspark", "kazoo", "horovod", "pandas")
MAY_IMPORT = {"kazoo": {"registry"}, "tensorflow": {"frameworks", "arrow_feed"}}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def runtime_imports(tree: ast.Module):
    """Yield every imported module but those for type checkers, with whether it is at the top."""

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                yield child.module, top
                if child.module == "tfos":
                    yield from ((f"tfos.{alias.name}", top) for alias in child.names)
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, top and not inner)

    yield from visit(tree, True)


def imports_of(file: Path):
    return list(runtime_imports(ast.parse(file.read_text(encoding="utf-8"))))


def complaint(importer: str, imported: str) -> str | None:
    """Say what is wrong with one room importing another; None for nothing."""
    if importer == imported or importer == "__init__" or imported == "":
        return None
    if imported not in LEVEL or importer not in LEVEL:
        return f"{importer if importer not in LEVEL else imported} has no level: add it here"
    if LEVEL[importer] > LEVEL[imported] or (importer, imported) in ALLOWED_SIDEWAYS:
        return None
    return f"{importer} imports {imported}: imports point down only"


def tfos_rooms(names):
    for name, _ in names:
        if name == "tfos" or name.startswith("tfos."):
            room = name.split(".")[1] if "." in name else ""
            is_module = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()
            # `from tfos import __version__` names no room.
            yield room if is_module else ""


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down_only(file):
    wrong = {complaint(room_of(file), room) for room in tfos_rooms(imports_of(file))}
    assert wrong <= {None}


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_agreed(file):
    for name, top in imports_of(file):
        package = name.partition(".")[0]
        if package not in HEAVY or not top:
            continue
        assert room_of(file) in MAY_IMPORT.get(package, ()), f"{name} at the top of {file.name}"


def test_only_the_zookeeper_backend_knows_kazoo():
    knowing = {
        file.relative_to(PACKAGE).as_posix()
        for file in modules()
        if any(name.partition(".")[0] == "kazoo" for name, _ in imports_of(file))
    }
    assert all(path.startswith("registry/") for path in knowing)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("cli", "launcher", True),
        ("launcher", "fault", True),
        ("fault", "topology", True),
        ("fault", "registry", False),
        ("fault", "launcher", False),
        ("config", "topology", False),
        ("errors", "config", False),
        ("novelty", "errors", False),
    ],
)
def test_the_rule_itself(importer, imported, allowed):
    assert (complaint(importer, imported) is None) is allowed


def test_the_rule_sees_imports_inside_functions_and_not_those_for_types():
    tree = ast.parse(
        "if TYPE_CHECKING:\n    import a\n"
        "import b\n"
        "def f():\n    from tfos import launcher\n"
        "class C:\n    import c\n"
    )
    assert list(runtime_imports(tree)) == [
        ("b", True),
        ("tfos", False),
        ("tfos.launcher", False),
        ("c", True),
    ]


PROGRAMS = ("submit", "driver", "role", "training")
SHARED = ("application", "platform")
# Of the launcher's rooms: what each may import besides itself.
MAY_JOIN = {
    **{program: {"handover", *SHARED} for program in PROGRAMS},
    **{shared: set() for shared in SHARED},
    "handover": set(SHARED),
    "in_process": {"handover", *SHARED, *PROGRAMS},
}
BEGUN = {
    # Pickled for Spark's tasks.
    ("driver", "tfos.launcher.role.host"),
    # What the client hands to Spark is a script.
    ("handover", "tfos.launcher.driver.main"),
}
"""Where one program begins the next."""


def launcher_imports():
    for file in sorted((PACKAGE / "launcher").glob("*/*.py")):
        for name, _ in imports_of(file):
            if name.startswith("tfos.launcher."):
                yield file.parent.name, name


@pytest.mark.parametrize("room", MAY_JOIN)
def test_programs_of_a_run_join_only_by_what_they_hand_over(room):
    for importer, name in launcher_imports():
        imported = name.split(".")[2]
        if importer != room or imported == room or (room, name) in BEGUN:
            continue
        assert imported in MAY_JOIN[room], f"launcher/{room} imports {name}"


def test_every_room_of_the_launcher_has_its_rule():
    rooms = {path.name for path in (PACKAGE / "launcher").iterdir() if path.is_dir()}
    assert rooms - {"__pycache__"} == MAY_JOIN.keys()


@pytest.mark.parametrize(
    ("program", "others"),
    [
        ("tfos.launcher.role.host", ("submit", "driver", "training", "in_process")),
        ("tfos.launcher.training.main", ("submit", "driver", "role", "in_process")),
        ("tfos.launcher.submit.client", ("driver", "role", "training", "in_process")),
    ],
)
def test_a_program_loads_nothing_of_another(program, others):
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {program}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    rooms = tuple(f"tfos.launcher.{other}" for other in others)
    assert [name for name in loaded if name.startswith(rooms)] == []


LIGHT = """
import sys, time
began = time.perf_counter()
import {module}
spent = time.perf_counter() - began
heavy = sorted({{name.partition(".")[0] for name in sys.modules}} & set({heavy!r}))
print(spent, *heavy)
"""


@pytest.mark.parametrize(
    "module",
    [
        "tfos",
        "tfos.cli.main",
        "tfos.config_files",
        "tfos.launcher.submit.client",
        "tfos.fault.failures.record",
        "tfos.horovod_installed",
    ],
)
def test_importing_loads_nothing_heavy(module, capsys):
    program = LIGHT.format(module=module, heavy=HEAVY)
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    spent, *heavy = answer.stdout.split()
    assert heavy == []
    with capsys.disabled():
        print(f"\nimport {module}: {float(spent):.3f} s (aim: tfos under 0.3 s)")


def test_every_module_says_its_responsibility():
    silent = [f for f in modules() if not ast.get_docstring(ast.parse(f.read_text()))]
    assert silent == []
