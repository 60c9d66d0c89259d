"""Building Horovod, but for the build: the cache, the headers, the environment, the command."""

import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from tfos.cli.main import main
from tfos.errors import ConfigError, ExitCode, HorovodError
from tfos.horovod_build import installation, toolchain, wheel_build
from tfos.horovod_build.headers import HEADERS, missing_headers, write_headers
from tfos.horovod_build.toolchain import (
    build_environment,
    require_compiler,
    tools_to_fetch,
    write_cmake,
)
from tfos.horovod_build.wheel_build import Progress, obtain_wheel
from tfos.horovod_build.wheel_cache import WheelCache, build_settings, default_directory

PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
WHEEL = f"horovod-0.28.1-{PYTHON}-{PYTHON}-{PLATFORM}.whl"
NO_SETTINGS = {}


def telling(say):
    return Progress(say, lambda _percent: None)


@pytest.fixture
def cache(tmp_path):
    return WheelCache(tmp_path / "cache", "2.21.0", NO_SETTINGS)


def put(cache, name=WHEEL):
    with cache.locked(lambda: None) as work:
        (work / name).write_bytes(b"wheel")
        return cache.keep(work / name)


class TestWhereWheelsAre:
    def test_by_default_in_the_users_cache(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/ada")
        assert default_directory({}) == Path("/home/ada/.cache/tfos/horovod")
        assert default_directory({"XDG_CACHE_HOME": "/c"}) == Path("/c/tfos/horovod")
        assert default_directory({"XDG_CACHE_HOME": "c"}) == Path("/home/ada/.cache/tfos/horovod")

    def test_each_tensorflow_has_a_directory(self, cache, tmp_path):
        kept = put(cache)
        assert kept == tmp_path / "cache" / "tf-2.21.0" / WHEEL
        assert cache.wheel() == kept
        assert WheelCache(cache.root, "2.15.1", NO_SETTINGS).wheel() is None

    def test_settings_of_the_build_have_one_too(self, cache):
        put(cache)
        nccl = WheelCache(cache.root, "2.21.0", {"HOROVOD_GPU_OPERATIONS": "NCCL"})
        assert nccl.wheel() is None
        assert re.fullmatch(r"tf-2\.21\.0-[0-9a-f]{8}", nccl.directory.name)

    def test_settings_of_a_run_are_none_of_the_build(self):
        environ = {
            "HOROVOD_RANK": "1",
            "HOROVOD_FUSION_THRESHOLD": "0",
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_CUDA_HOME": "",
            "PATH": "/bin",
        }
        assert build_settings(environ) == {"HOROVOD_GPU_OPERATIONS": "NCCL"}

    @pytest.mark.parametrize(
        "name",
        [
            WHEEL.replace(PYTHON, "cp38"),
            WHEEL.replace(PLATFORM, "linux_s390"),
            WHEEL.replace("0.28.1", "0.27.0"),
        ],
    )
    def test_another_pythons_platforms_or_horovods_wheel_is_not_taken(self, cache, name):
        put(cache, name)
        assert cache.wheel() is None


class TestTheLock:
    def test_what_a_killed_build_left_goes_with_the_next_and_so_does_its_own(self, cache):
        left = cache.root / ".build-left" / "tmp"
        left.mkdir(parents=True)
        with cache.locked(lambda: None) as work:
            assert not left.exists()
            (work / "half.whl").touch()
        assert [path.name for path in cache.root.iterdir()] == [".lock"]

    def test_another_process_waits_and_then_takes_what_was_built(self, cache, monkeypatch):
        monkeypatch.setattr(wheel_build, "require_compiler", lambda: None)
        monkeypatch.setattr(wheel_build, "_compile", lambda *_: Path("built again.whl"))
        second = WheelCache(cache.root, "2.21.0", NO_SETTINGS)
        waits, taken = threading.Event(), []
        progress = telling(lambda _line: waits.set())

        def obtain():
            taken.append(obtain_wheel(second, "2.21.0", progress, rebuild=False))

        with cache.locked(lambda: None) as work:
            other = threading.Thread(target=obtain)
            other.start()
            assert waits.wait(10)
            (work / WHEEL).touch()
            kept = cache.keep(work / WHEEL)
        other.join(10)
        assert taken == [kept]

    def test_a_cache_that_cannot_be_written_says_so(self, tmp_path):
        (tmp_path / "file").touch()
        cache = WheelCache(tmp_path / "file" / "cache", "2.21.0", NO_SETTINGS)
        with pytest.raises(HorovodError, match=r"cannot be written.* --cache"), cache.locked(print):
            pass


class TestHeaders:
    def test_only_those_tensorflow_lacks_are_written(self, tmp_path):
        include, shims = tmp_path / "include", tmp_path / "shims"
        write_headers({"highwayhash/sip_hash.h": "theirs"}, include)
        lacking = missing_headers(include)
        assert set(lacking) == set(HEADERS) - {"highwayhash/sip_hash.h"}
        write_headers(lacking, shims)
        written = {str(path.relative_to(shims)) for path in shims.rglob("*.h")}
        assert written == set(lacking)

    def test_none_for_a_tensorflow_that_has_all(self, tmp_path):
        write_headers(HEADERS, tmp_path)
        assert missing_headers(tmp_path) == {}


class TestTheEnvironment:
    TOOLS, HEADERS, TEMPORARY = Path("/t"), Path("/h"), Path("/tmp/b")

    def made_of(self, **environ):
        return build_environment(environ, self.TOOLS, self.HEADERS, self.TEMPORARY, cores=3)

    def test_what_the_user_sets_passes_and_what_tfos_needs_goes_first(self):
        env = self.made_of(
            PATH="/bin", CPATH="/mine", PYTHONPATH="/own", HOROVOD_GPU_OPERATIONS="NCCL"
        )
        assert env["HOROVOD_GPU_OPERATIONS"] == "NCCL"
        assert env["CPATH"] == "/h:/mine"
        assert env["PYTHONPATH"] == "/t:/own"
        assert env["PATH"].startswith("/t/bin:")
        assert env["PATH"].endswith(":/bin")
        assert env["HOROVOD_WITH_TENSORFLOW"] == env["HOROVOD_WITHOUT_MPI"] == "1"

    def test_mpi_may_be_asked_for(self):
        assert "HOROVOD_WITHOUT_MPI" not in self.made_of(HOROVOD_WITH_MPI="1")

    def test_the_number_of_compilers_is_the_users_but_never_an_outer_makes(self):
        assert self.made_of()["MAKEFLAGS"] == "-j3"
        assert self.made_of(MAKEFLAGS="-j1")["MAKEFLAGS"] == "-j1"
        outer = self.made_of(MAKEFLAGS=" --jobserver-auth=3,4 -j", MAKELEVEL="1", MFLAGS="-j")
        assert outer["MAKEFLAGS"] == "-j3"
        assert not {"MAKELEVEL", "MFLAGS"} & set(outer)

    @pytest.mark.parametrize("fetched", [True, False])
    def test_cmake_builds_what_tensorflow_needs_without_symbols(self, tmp_path, fetched):
        tools, users = tmp_path / "tools", tmp_path / "the user's cmake"
        say = '#!/bin/sh\necho $(basename "$0") "$@"'
        write_headers({"bin/cmake": say} if fetched else {"unrelated": ""}, tools)
        write_headers({users.name: say}, tmp_path)
        for program in (tools / "bin" / "cmake", users):
            if program.exists():
                program.chmod(0o755)
        environ = {"HOROVOD_CMAKE": str(users)}
        write_cmake(environ, tools)
        cmake = build_environment(environ, tools, tmp_path, tmp_path, 1)["HOROVOD_CMAKE"]

        def said(*words):
            done = subprocess.run([cmake, *words], capture_output=True, text=True, check=True)
            return done.stdout.strip()

        name = "cmake" if fetched else users.name
        assert said("--build", ".", "--", "-j2") == f"{name} --build . --target tensorflow -- -j2"
        flags = "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -DNDEBUG"
        assert said("..", "-DA=1") == f"{name} .. -DA=1 {flags}"

    @pytest.mark.parametrize(
        ("says", "fetched"), [("3.12.4", True), ("3.13.0", False), ("4.1.2", False), ("?", True)]
    )
    def test_cmake_is_fetched_where_it_is_too_old(self, tmp_path, monkeypatch, says, fetched):
        cmake = tmp_path / "cmake"
        cmake.write_text(f"#!/bin/sh\necho cmake version {says}\n")
        cmake.chmod(0o755)
        monkeypatch.setenv("HOROVOD_CMAKE", str(cmake))
        assert any(each.startswith("cmake") for each in tools_to_fetch()) is fetched

    def test_cmake_is_fetched_where_there_is_none(self, monkeypatch):
        monkeypatch.setenv("HOROVOD_CMAKE", "/nowhere/cmake")
        assert any(each.startswith("cmake") for each in tools_to_fetch())


class TestWhatIsMissing:
    def found(self, monkeypatch, *programs):
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("CMAKE_GENERATOR", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)

    def test_a_compiler(self, monkeypatch):
        self.found(monkeypatch, "make")
        with pytest.raises(ConfigError, match=r"C\+\+ compiler.*apt install g\+\+"):
            require_compiler()

    def test_the_compiler_that_was_named(self, monkeypatch):
        self.found(monkeypatch, "make", "g++")
        monkeypatch.setenv("CXX", "clang++-19 -v")
        with pytest.raises(ConfigError, match=r"found none as clang\+\+-19:"):
            require_compiler()

    def test_make(self, monkeypatch):
        self.found(monkeypatch, "g++")
        with pytest.raises(ConfigError, match="apt install make"):
            require_compiler()

    def test_nothing(self, monkeypatch):
        self.found(monkeypatch, "g++", "make")
        require_compiler()

    def test_tensorflow(self, monkeypatch):
        monkeypatch.setattr(toolchain, "tensorflow_version", lambda: None)
        with pytest.raises(ConfigError, match="pip install tensorflow"):
            toolchain.require_tensorflow()

    def test_linux(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(ConfigError, match="on Linux only; this is darwin"):
            toolchain.require_linux()


class TestAFailedBuild:
    def fail(self, monkeypatch, cache, tensorflow="2.21.0"):
        def compiles_not(_work, log, *_):
            log.write_text("all of it")
            raise HorovodError("pip wheel ended with status 1", last_lines="error: no luck")

        monkeypatch.setattr(wheel_build, "require_compiler", lambda: None)
        monkeypatch.setattr(wheel_build, "_compile", compiles_not)
        lines = []
        with pytest.raises(HorovodError) as caught:
            obtain_wheel(cache, tensorflow, telling(lines.append), rebuild=False)
        return caught.value, lines

    def test_says_what_and_where_the_log_is(self, monkeypatch, cache):
        error, lines = self.fail(monkeypatch, cache)
        assert "0.28.1 could not be built for TensorFlow 2.21.0: pip wheel" in str(error)
        assert str(cache.log) in str(error)
        assert cache.log.read_text() == "all of it"
        assert error.last_lines == "error: no luck"
        assert lines == []
        assert cache.wheel() is None

    def test_a_tensorflow_nobody_tried_is_tried_with_a_warning(self, monkeypatch, cache):
        _, (warning,) = self.fail(monkeypatch, cache, "2.210.0")
        assert warning.startswith(
            "warning: nobody has tried Horovod 0.28.1 with TensorFlow 2.210.0"
        )


class TestTheCommand:
    def run(self, *args):
        return CliRunner().invoke(main, ["horovod", *args])

    def test_help_names_options_needs_and_exit_codes(self):
        answer = self.run("--help")
        assert answer.exit_code == 0
        for words in ("--cache DIR", "--check", "--rebuild", "apt install g++", "Exit codes"):
            assert words in answer.output
        assert max(map(len, answer.output.splitlines())) <= 100

    def test_check_and_rebuild_contradict(self):
        answer = self.run("--check", "--rebuild")
        assert (answer.exit_code, "--check changes nothing" in answer.output) == (2, True)

    def test_an_error_is_one_line_below_what_was_said_last(self, monkeypatch, tmp_path):
        def provide(root, _progress, *, rebuild):
            assert (root, rebuild) == (tmp_path, True)
            raise HorovodError("no\nluck", last_lines="one\ntwo")

        monkeypatch.setattr(installation, "provide", provide)
        answer = self.run("--cache", str(tmp_path), "--rebuild")
        assert answer.exit_code == ExitCode.INFRASTRUCTURE
        assert answer.stderr == "one\ntwo\ntfos horovod: error: no luck\n"

    def test_interruption_has_its_exit_code(self, monkeypatch):
        def check(_progress):
            raise KeyboardInterrupt

        monkeypatch.setattr(installation, "check", check)
        assert self.run("--check").exit_code == ExitCode.INTERRUPTED


class TestProvide:
    @pytest.fixture(autouse=True)
    def _stage(self, monkeypatch, tmp_path):
        self.done, self.problem, self.works, self.root = [], None, True, tmp_path
        stage = {
            "require_tensorflow": lambda: "2.21.0",
            "horovod_problem": lambda: self.problem,
            "obtain_wheel": self.obtain,
            "_install": lambda *_: self.done.append("install"),
            "check_allreduce": self.check,
            "build_settings": lambda _: self.settings,
        }
        self.settings = {}
        for name, stand_in in stage.items():
            monkeypatch.setattr(installation, name, stand_in)

    def obtain(self, *_args, rebuild):
        self.done.append("rebuild" if rebuild else "wheel")
        return Path("/c/w.whl")

    def check(self):
        self.done.append("check")
        if not self.works and "install" not in self.done:
            raise HorovodError("check failed", last_lines="undefined symbol")
        return 1.0

    def provide(self, **options):
        self.done.clear()
        installation.provide(self.root, telling(print), **options)
        return self.done

    def test_what_is_missing_is_brought_once(self):
        self.problem = "Horovod is not installed"
        assert self.provide() == ["wheel", "install", "check"]
        self.problem = None
        assert self.provide() == []

    def test_what_was_installed_by_hand_is_checked_once(self):
        assert self.provide() == ["check"]
        assert self.provide() == []

    def test_what_was_installed_by_hand_and_does_not_work_is_replaced(self):
        self.works = False
        assert self.provide() == ["check", "wheel", "install", "check"]
        assert self.provide() == []

    def test_rebuild_builds_whatever_is_there(self):
        self.provide()
        assert self.provide(rebuild=True) == ["rebuild", "install", "check"]

    def test_other_settings_bring_another_wheel(self):
        self.provide()
        self.settings = {"HOROVOD_GPU_OPERATIONS": "NCCL"}
        assert self.provide() == ["wheel", "install", "check"]
        assert self.provide() == []
