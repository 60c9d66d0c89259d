"""What is shown while YARN does not run an application yet."""

from tfos.launcher.platform.yarn_wait import EVERY_S, YarnWait


def test_it_is_said_at_a_steady_pace_what_is_waited_for_and_for_how_long():
    wait = YarnWait(True, 100.0)
    said = [words for at in range(100, 221) if (words := wait.words(at)) is not None]
    assert len(said) == 120 / EVERY_S
    assert said[0] == (
        "YARN has accepted the application; it waits for a container whose host unpacks the "
        "environment, which takes minutes the first time: 20 s so far"
    )
    assert said[-1].endswith("120 s so far")


def test_no_environment_is_unpacked_where_none_is_shipped():
    assert "environment" not in YarnWait(False, 0.0).words(EVERY_S)
