"""Which Java is started, and what is said where there is none."""

import pytest

from tfos.errors import ConfigError
from tfos.java import find_java


@pytest.fixture
def homes(tmp_path):
    """Two installations."""
    for name in ("one", "two"):
        java = tmp_path / name / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.touch(0o755)
    return tmp_path


def test_the_home_goes_before_the_path(homes):
    path = {"PATH": f"{homes}/two/bin"}
    assert find_java("x", {**path, "JAVA_HOME": f"{homes}/one"}) == f"{homes}/one/bin/java"
    assert find_java("x", {**path, "JAVA_HOME": ""}) == f"{homes}/two/bin/java"


@pytest.mark.parametrize(
    ("home", "says"),
    [("none", r"JAVA_HOME is .*none, without bin/java\): HDFS needs"), ("", "none is on PATH")],
)
def test_a_home_without_java_is_not_passed_over(homes, home, says):
    environ = {"PATH": str(homes), "JAVA_HOME": home and f"{homes}/{home}"}
    with pytest.raises(ConfigError, match=says):
        find_java("HDFS needs it", environ)
