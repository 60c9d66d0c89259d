"""What a host says of itself, and which differences from the driver are told."""

import json
import platform

import pytest

import tfos
from tfos.environments import versions
from tfos.environments.versions import describe_here, differences, installed_versions

DRIVER = {
    "host": "edge",
    "python": "3.11.7",
    "machine": "x86_64",
    "tensorflow": "2.21.0",
    "horovod": "0.28.1",
    "pyarrow": "26.0.1",
    "pandas": "2.3.3",
    "tfos": "0.1.0",
    "tfos_code": "aa",
}


def host(**changes):
    return {**DRIVER, "host": "node7", **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"python": "3.11.9"},
        {"machine": "aarch64"},
        {"tensorflow": "2.21.1"},
        {"pyarrow": "15.0.0", "pandas": "2.2.0"},
        {"tfos_code": None},
    ],
)
def test_what_does_not_matter_is_not_told(changes):
    assert differences(DRIVER, host(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"python": "3.12.1"}, "node7 has Python 3.12.1, the driver 3.11.7: "),
        ({"tensorflow": "2.15.1"}, "node7 has TensorFlow 2.15.1, the driver 2.21.0: "),
        ({"tensorflow": None}, "node7 has no TensorFlow, which training needs"),
        ({"pyarrow": None}, "node7 has no pyarrow, which training needs"),
        ({"horovod": None}, "node7 has no Horovod, which training needs"),
        ({"pandas": None}, "node7 has no pandas, which training needs"),
        ({"tfos": "0.2.0"}, "node7 has tfos 0.2.0, the driver 0.1.0: they have to be the same"),
        ({"tfos_code": "bb"}, "node7 has other code under tfos 0.1.0 than the driver: "),
    ],
)
def test_what_matters_is_told_once(changes, said):
    told = differences(DRIVER, host(**changes))
    assert len(told) == 1
    assert told[0].startswith(said)


def test_a_driver_without_tensorflow_has_nothing_to_compare():
    assert differences({**DRIVER, "tensorflow": None}, host()) == []


def test_a_host_describes_itself_in_plain_text():
    here = describe_here(["tensorflow"])
    assert json.loads(json.dumps(here)) == here
    assert here["python"] == platform.python_version()
    assert here["tfos"] == tfos.__version__
    assert here.keys() == DRIVER.keys() - {"horovod"}
    assert differences(here, here) == []


def test_another_copy_of_tfos_is_told_apart(tmp_path, monkeypatch):
    package = tmp_path / "tfos"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(versions.tfos, "__file__", str(package / "__init__.py"))
    before = describe_here([])["tfos_code"]
    assert describe_here([])["tfos_code"] == before
    (package / "__init__.py").write_text("#")
    assert describe_here([])["tfos_code"] not in (before, None)


def test_versions_are_read_where_asked(tmp_path):
    for name, version in [("tensorflow_cpu", "2.15.1"), ("pyarrow", "15.0")]:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
    assert installed_versions(["tensorflow", "horovod"], [str(tmp_path)]) == {
        "tensorflow": "2.15.1",
        "horovod": None,
        "pyarrow": "15.0",
        "pandas": None,
        "tfos": None,
    }
