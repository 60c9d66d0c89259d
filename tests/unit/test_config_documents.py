"""The documents about settings say what the settings are."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from tfos.config import JobConfig
from tfos.config_files import known_settings, load
from tfos.launcher.platform.checks import check_supported

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "generate_configuration", ROOT / "docs" / "generate_configuration.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_generated_documents_are_up_to_date(generator, capsys):
    code = generator.main(["--check"])
    assert code == 0, capsys.readouterr().err


def test_the_check_notices_a_change(generator, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(generator, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(generator, "DEFAULTS", tmp_path / "d.yaml")
    assert generator.main(["--check"]) == 1
    assert "page.md is out of date" in capsys.readouterr().err
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0


def test_the_defaults_file_is_the_defaults():
    file = ROOT / "conf" / "tfos-defaults.yaml"
    assert load(conf_files=[file], environ={"HOME": "/nowhere"}) == JobConfig()
    assert set(leaves(yaml.safe_load(file.read_text()))) == set(known_settings())


def test_the_page_names_every_setting():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert not [name for name in known_settings() if f"| `{name}` |" not in page]


@pytest.mark.parametrize(("name", "dry"), [("local", False), ("yarn", True), ("k8s", True)])
def test_the_examples_work(name, dry, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load(conf_files=[ROOT / "conf" / f"example-{name}.yaml"], environ={})
    check_supported(config, dry_run=dry)
    assert json.loads(config.model_dump_json())["arch"] == "ps"
