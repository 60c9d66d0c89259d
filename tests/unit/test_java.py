"""Which Java is started, and what is said where there is none."""

import pytest

from tfos.errors import ConfigError, ExitCode
from tfos.java import find_java, jvm_refusal


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


@pytest.mark.parametrize(
    ("said", "code", "names"),
    [
        (
            "Error occurred during initialization of VM\n"
            "Could not reserve enough space for 524288KB object heap",
            ExitCode.RESOURCES,
            "Could not reserve enough space for 524288KB",
        ),
        (
            "OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory(0x0, 1, 0) failed; "
            "error='Cannot allocate memory' (errno=12)\n#\n# There is insufficient memory",
            ExitCode.RESOURCES,
            "ulimit -v",
        ),
        (
            '[0.01s][warning][os,thread] Failed to start thread "GC Thread#0" - '
            "pthread_create failed (EAGAIN)",
            ExitCode.CONFIG,
            "ulimit -u",
        ),
        (
            "Picked up JAVA_TOOL_OPTIONS: -Xmx1m\n"
            "Error occurred during initialization of VM\nToo small maximum heap",
            ExitCode.CONFIG,
            "Too small maximum heap; correct JAVA_TOOL_OPTIONS",
        ),
        (
            "java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory",
            ExitCode.CONFIG,
            "ulimit -u",
        ),
        ("java.io.IOException: No space left on device", ExitCode.INFRASTRUCTURE, "TMPDIR"),
    ],
)
def test_a_jvm_that_the_machine_does_not_let_run_is_told_by_its_own_words(said, code, names):
    refusal = jvm_refusal("/usr/bin/java", said)
    assert refusal.exit_code == code
    assert str(refusal).startswith("/usr/bin/java does not run: ")
    assert names in str(refusal)
    assert "install" not in str(refusal)


def test_other_words_of_a_jvm_say_nothing_of_the_machine():
    assert jvm_refusal("java", "Unrecognized option: -x\nError: Could not create the JVM") is None
