"""What a look at the installed packages says of Horovod, without importing any of them."""

import json

import pytest

from tfos.horovod_installed import horovod_problem, horovod_version, tensorflow_version


def install(site, name, version):
    """Lay out what pip leaves of a package."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def install_horovod(site, **built_for):
    install(site, "horovod", "0.28.1")
    (site / "horovod").mkdir()
    (site / "horovod" / "metadata.json").write_text(json.dumps({**built_for, "dummy": "none"}))


def problem(site):
    return horovod_problem([str(site)])


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-cpu", "tf-nightly"])
def test_tensorflow_is_found_by_each_of_its_names(tmp_path, name):
    install(tmp_path, name, "2.15.1")
    assert tensorflow_version([str(tmp_path)]) == "2.15.1"


def test_an_empty_environment_has_neither(tmp_path):
    assert tensorflow_version([str(tmp_path)]) is None
    assert horovod_version([str(tmp_path)]) is None
    said = "TensorFlow is not installed: pip install tensorflow, then run tfos horovod"
    assert problem(tmp_path) == said


def test_horovod_is_missing(tmp_path):
    install(tmp_path, "tensorflow-cpu", "2.21.0")
    assert problem(tmp_path) == "Horovod is not installed: run tfos horovod"


def test_horovod_of_another_tensorflow(tmp_path):
    install(tmp_path, "tensorflow", "2.21.0")
    install_horovod(tmp_path, tensorflow="2.15.1")
    said = "Horovod was built for TensorFlow 2.15.1, installed is 2.21.0: run tfos horovod"
    assert problem(tmp_path) == said


def test_horovod_without_tensorflow(tmp_path):
    install(tmp_path, "tensorflow", "2.21.0")
    install_horovod(tmp_path, pytorch="2.7.1")
    said = "Horovod was built for no TensorFlow, installed is 2.21.0: run tfos horovod"
    assert problem(tmp_path) == said


@pytest.mark.parametrize(("wheel", "itself"), [("2.21.0", "2.21.0"), ("2.16.0rc1", "2.16.0-rc1")])
def test_nothing_is_wrong(tmp_path, wheel, itself):
    install(tmp_path, "tensorflow", wheel)
    install_horovod(tmp_path, tensorflow=itself)
    assert problem(tmp_path) is None
    assert horovod_version([str(tmp_path)]) == "0.28.1"


@pytest.mark.parametrize("record", [None, "", "{", "[]"])
def test_a_build_that_recorded_nothing_is_not_refused(tmp_path, record):
    install(tmp_path, "tensorflow", "2.21.0")
    install_horovod(tmp_path)
    file = tmp_path / "horovod" / "metadata.json"
    if record is None:
        file.unlink()
    else:
        file.write_text(record)
    assert problem(tmp_path) is None
