"""Which environments --env names, and what is said of those it does not."""

import pytest

from tfos.environment_spec import EnvironmentSpec, parse_environment
from tfos.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("none", "none", ""),
        (" None ", "none", ""),
        ("venv:/opt/train", "venv", "/opt/train"),
        ("venv:~/train", "venv", "~/train"),
        ("VENV: .venv", "venv", ".venv"),
        ("conda:train", "conda", "train"),
        ("conda:/opt/conda/envs/train", "conda", "/opt/conda/envs/train"),
        ("archive:hdfs://nn:8020/envs/a.tar.gz", "archive", "hdfs://nn:8020/envs/a.tar.gz"),
        ("archive:/shared/a.TGZ", "archive", "/shared/a.TGZ"),
        ("docker:registry:5000/team/train:2.1", "docker", "registry:5000/team/train:2.1"),
    ],
)
def test_it_is_read(text, kind, value):
    assert parse_environment(text) == EnvironmentSpec(kind, value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"it should be none, venv:DIRECTORY"),
        ("pex:/a.pex", r"it should be .* or docker:IMAGE$"),
        ("/opt/train", r"for a virtual environment: venv:/opt/train$"),
        ("none:x", r"none takes no value: use none$"),
        ("venv:", r"names nothing: use venv:DIRECTORY"),
        ("conda: ", r"names nothing: use conda:NAME or conda:DIRECTORY"),
        ("docker", r"names nothing: use docker:IMAGE"),
        ("venv:/opt/train/bin/python3.11", r"not its interpreter: venv:/opt/train$"),
        ("conda:/opt/train/bin/python", r"not its interpreter: conda:/opt/train$"),
        ("venv:hdfs://nn/a.tar.gz", r"for a URL: archive:hdfs://nn/a.tar.gz"),
        ("archive:hdfs://nn/a.tar.gz#env", r"leave out what begins with '#'"),
        ("archive:hdfs://nn/a b.tar.gz", r"spaces and commas"),
        ("archive:hdfs://nn/a,b.tar.gz", r"spaces and commas"),
        ("archive:hdfs://nn/a.tar.xz", r"has to end in .tar.gz, .tgz, .zip, .tar"),
        ("docker:https://registry/train", r"without a scheme"),
        ("docker:train 2", r"neither spaces nor commas"),
    ],
)
def test_what_is_malformed_is_refused_with_what_to_write(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_environment(text)


@pytest.mark.parametrize("text", ["none", "venv:/opt/train", "docker:train:2"])
def test_it_is_said_as_it_was_given(text):
    assert str(parse_environment(text)) == text


@pytest.mark.parametrize(
    ("text", "packed", "archive"),
    [
        ("none", False, False),
        ("docker:a", False, False),
        ("archive:/a.zip", False, True),
        ("venv:/a", True, True),
        ("conda:a", True, True),
    ],
)
def test_it_knows_whether_an_archive_has_to_be_made(text, packed, archive):
    spec = parse_environment(text)
    assert (spec.is_packed, spec.is_archive) == (packed, archive)
