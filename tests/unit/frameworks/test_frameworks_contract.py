from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tfos.architectures import architecture_names
from tfos.config import JobConfig, RoleResources
from tfos.errors import ConfigError
from tfos.frameworks.contract import check_resumes, load_framework, saved_variables
from tfos.launcher.platform.checks import check_supported
from tfos.topology import Role, TaskKey

STATE, SESSION = ("state.index", "state.data-00000-of-00001"), ("session.index",)


def found(arch: str | None, files: tuple[str, ...]) -> SimpleNamespace:
    made_by = {} if arch is None else {"arch": arch, "tensorflow": "2.21.0", "tfos": "0.1.0"}
    return SimpleNamespace(step=7, path="/c/fm/ckpt-7", files=files, made_by=made_by)


@pytest.mark.parametrize(
    ("own", "other", "files", "goes"),
    [
        ("local", "local", STATE, True),
        # One object graph under all three.
        ("ps", "local", STATE, True),
        ("ring", "ps", STATE, True),
        ("local", "ring", STATE, True),
        ("session", "session", SESSION, True),
        ("ps", "session", SESSION, False),
        ("local", "session", SESSION, False),
        ("session", "ring", STATE, False),
        ("plain", "local", STATE, False),
        ("plain", "session", SESSION, False),
        ("local", "plain", ("state.json",), True),
        # Files of the program's own mean the same everywhere.
        ("ps", "session", ("weights.npz",), True),
        # Unknown: what reads it decides.
        ("ps", None, SESSION, True),
        ("ps", "of a plug-in", SESSION, True),
    ],
)
def test_which_architecture_resumes_from_which(own, other, files, goes):
    if goes:
        check_resumes(load_framework(own), found(other, files))
        return
    with pytest.raises(ConfigError) as refused:
        check_resumes(load_framework(own), found(other, files))
    told = str(refused.value)
    assert f"step 7 (/c/fm/ckpt-7) was written by --arch {other}" in told
    assert "(tensorflow 2.21.0, tfos 0.1.0)" in told
    assert (
        f"--arch {own} cannot resume from it: use --arch {other}, another --name, or --fr" in told
    )


def test_what_something_else_saved_is_refused_by_what_was_to_read_it(tmp_path):
    for name in ("MANIFEST.json", "COMMITTED", "weights.npz"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"ctx.fit cannot .* state.index, found weights.npz, wh"):
        saved_variables(str(tmp_path), "state", "ctx.fit")
    (tmp_path / "state.index").touch()
    assert saved_variables(str(tmp_path), "state", "ctx.fit") == str(tmp_path / "state")


@pytest.mark.parametrize("arch", ["ps", "session"])
def test_parameters_need_a_server(arch):
    with pytest.raises(ConfigError, match=f"--arch {arch} needs --num-ps of 1 or more"):
        check_supported(JobConfig(arch=arch, roles={"num_ps": 0}))
    check_supported(JobConfig(arch="ring", roles={"num_ps": 0}))


@pytest.mark.parametrize("name", architecture_names())
def test_the_help_says_of_each_architecture_what_it_is_for(name):
    assert load_framework(name).summary.endswith(".")


@pytest.mark.parametrize(
    ("cpus", "cores", "threads"), [(1, None, "2"), (8, None, None), (8, 1, "2"), (1, 4, "4")]
)
def test_no_process_of_tensorflow_has_one_thread_for_its_ops(monkeypatch, cpus, cores, threads):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cpus)))
    key = TaskKey(Role.WORKER, 0)
    environment = load_framework("ps").environment(key, RoleResources(cores=cores))
    assert environment.get("TF_NUM_INTEROP_THREADS") == threads


def test_plain_publishes_what_a_function_writes(tmp_path):
    with load_framework("plain").runtime(None, None) as runtime:
        runtime.exporter(lambda directory: Path(directory, "a").touch(), None, {})(str(tmp_path))
        assert (tmp_path / "a").exists()
        for model, signatures, options in (
            ("m", None, {}),
            (print, [], {}),
            (print, None, {"x": 1}),
        ):
            with pytest.raises(TypeError, match=r"ctx\.export: model .* writes the model there"):
                runtime.exporter(model, signatures, options)
